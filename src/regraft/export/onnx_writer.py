"""Networks as ONNX files."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from regraft.errors import InputError, MissingDependency, unknown
from regraft.export.onnx_sparse import FORMS, store_sparse
from regraft.export.program import Program, Step
from regraft.export.trace import trace
from regraft.files import PathLike, atomic_write
from regraft.layers import densify

OPSET, IR_VERSION = 17, 8
"""Old enough for runtimes from 2022 on."""


def to_onnx(
    model: nn.Module,
    path: PathLike,
    *,
    input_shape: Sequence[int] | None = None,
    sparse: str = "no",
    example: torch.Tensor | None = None,
) -> Program | None:
    """Write ``model`` as an ONNX file with input ``x [batch, *input_shape]`` and output ``y``.

    Models of operations that regraft knows are written directly. Any other model is handed to torch's own
    exporter, if its package onnxscript is installed; it then needs ``example``, or ``input_shape``.

    Args:
        path: the file to write, whole or not at all.
        input_shape: shape of one sample; default as in ``trace``.
        sparse: how weights that are mostly zero are stored: ``"no"`` (dense), ``"tensor"`` (ONNX's own
            sparse tensors, 12 bytes a connection) or ``"packed"`` (16-bit steps and values, 6 bytes, put in
            place by ordinary operators when a session starts). onnxruntime reads all of them, and computes
            densely with all of them.
        example: a batch of inputs, for torch's exporter.

    Returns:
        what was exported; None where torch's exporter wrote it.

    Raises:
        InputError: the model cannot be exported, an unknown ``sparse``.
        MissingDependency: the package onnx is not installed.
        FileError: the file cannot be written.
    """
    if sparse not in FORMS:
        raise unknown("sparse form", sparse, FORMS)
    try:
        import onnx
    except ImportError as error:
        raise MissingDependency("onnx", "onnx", "export to ONNX") from error
    program: Program | None = None
    try:
        program = trace(model, input_shape if example is None else tuple(example.shape[1:]))
        proto = _Writer(program).model()
    except InputError as error:
        proto = _by_torch(model, input_shape, example, error)
    if sparse != "no":
        store_sparse(proto, sparse)
    onnx.checker.check_model(proto)
    with atomic_write(path) as file:
        file.write(proto.SerializeToString(deterministic=True))
    return program


def _by_torch(
    model: nn.Module, input_shape: Sequence[int] | None, example: torch.Tensor | None, reason: InputError
) -> Any:
    """The model written by torch's exporter, or the reason why regraft could not write it itself."""
    import copy

    if example is None and input_shape is None:
        raise reason
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError(f"{reason}; torch's exporter could try, if onnxscript were installed") from None
    dense = densify(nn.Sequential(copy.deepcopy(model))).eval()
    like = next(model.parameters(), torch.zeros(()))
    x = example if example is not None else like.new_zeros((2, *(input_shape or ())))
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.onnx.export(
                dense, (x,), dynamo=True, verbose=False, input_names=["x"], output_names=["y"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )  # fmt: skip
    except Exception as error:  # torch's exporter raises many kinds
        raise InputError(f"{reason}; torch's exporter failed as well: {type(error).__name__}") from error
    finally:
        logger.setLevel(level)
    assert exported is not None
    return exported.model_proto


class _Writer:
    """Collects the nodes and initialisers of one network."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.nodes: list[Any] = []
        self.initialisers: list[Any] = []

    def model(self) -> Any:
        from onnx import TensorProto, helper

        names = {0: "x"}
        for step in self.program.steps:
            last = step is self.program.steps[-1]
            names[step.output] = "y" if last else f"v{step.output}"
            _WRITE.get(step.op, _Writer.activation)(
                self, step, [names[i] for i in step.inputs], names[step.output]
            )
        graph = helper.make_graph(
            self.nodes, "regraft",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *self.program.input_shape])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", *self.program.output_shape])],
            self.initialisers,
        )  # fmt: skip
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        made.producer_name = "regraft"
        return made

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))

    def array(self, step: Step, part: str, array: Any) -> str:
        from onnx import numpy_helper

        name = f"{step.output}.{step.where}.{part}"
        self.initialisers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def linear(self, step: Step, inputs: list[str], output: str) -> None:
        assert step.weight is not None
        dense = step.weight.dense()
        if len(step.shape) == 1:
            names = [inputs[0], self.array(step, "weight", dense)]
            if step.bias is not None:
                names.append(self.array(step, "bias", step.bias))
            self.add("Gemm", names, output, transB=1)
            return
        product = output if step.bias is None else f"{output}.product"
        self.add("MatMul", [inputs[0], self.array(step, "weight", dense.T)], product)
        if step.bias is not None:
            self.add("Add", [product, self.array(step, "bias", step.bias)], output)

    def conv(self, step: Step, inputs: list[str], output: str) -> None:
        assert step.weight is not None
        names = [inputs[0], self.array(step, "weight", step.weight.dense())]
        if step.bias is not None:
            names.append(self.array(step, "bias", step.bias))
        settings = step.settings
        self.add(
            "Conv", names, output, kernel_shape=settings["kernel"], strides=settings["stride"],
            pads=_pads(settings), dilations=settings["dilation"], group=settings["groups"],
        )  # fmt: skip

    def pool(self, step: Step, inputs: list[str], output: str) -> None:
        settings = step.settings
        common = {
            "kernel_shape": settings["kernel"], "strides": settings["stride"], "pads": _pads(settings),
        }  # fmt: skip
        if step.op == "max_pool":
            self.add("MaxPool", inputs, output, dilations=settings["dilation"], **common)
        else:
            self.add("AveragePool", inputs, output, count_include_pad=int(settings["count_pad"]), **common)

    def scale(self, step: Step, inputs: list[str], output: str) -> None:
        assert step.factor is not None
        assert step.bias is not None
        along = (-1, *(1,) * (len(step.shape) - 1))
        self.add(
            "Mul", [inputs[0], self.array(step, "factor", step.factor.reshape(along))], f"{output}.scaled"
        )
        self.add("Add", [f"{output}.scaled", self.array(step, "bias", step.bias.reshape(along))], output)

    def reshape(self, step: Step, inputs: list[str], output: str) -> None:
        shape = self.array(step, "shape", np.array([-1, *step.shape], np.int64))
        self.add("Reshape", [inputs[0], shape], output)

    def sum_of(self, step: Step, inputs: list[str], output: str) -> None:
        self.add("Add", inputs, output)

    def activation(self, step: Step, inputs: list[str], output: str) -> None:
        x = inputs[0]
        if step.op == "relu6":
            low = self.array(step, "low", np.float32(0)), self.array(step, "high", np.float32(6))
            self.add("Clip", [x, *low], output)
        elif step.op == "silu":
            self.add("Sigmoid", [x], f"{output}.gate")
            self.add("Mul", [x, f"{output}.gate"], output)
        elif step.op == "gelu":  # x (1 + erf(x / sqrt 2)) / 2; an operator of its own only from opset 20 on
            self.add("Mul", [x, self.array(step, "half", np.float32(0.5))], f"{output}.half")
            self.add("Mul", [x, self.array(step, "root", np.float32(0.5**0.5))], f"{output}.root")
            self.add("Erf", [f"{output}.root"], f"{output}.erf")
            self.add("Add", [f"{output}.erf", self.array(step, "one", np.float32(1))], f"{output}.gate")
            self.add("Mul", [f"{output}.half", f"{output}.gate"], output)
        else:
            op, attributes = _ACTIVATIONS[step.op]
            settings = iter(step.settings.values())
            self.add(op, [x], output, **{a: -1 if a == "axis" else next(settings) for a in attributes})


_WRITE: dict[str, Callable[[_Writer, Step, list[str], str], None]] = {
    "linear": _Writer.linear, "conv": _Writer.conv, "max_pool": _Writer.pool, "avg_pool": _Writer.pool,
    "scale": _Writer.scale, "reshape": _Writer.reshape, "add": _Writer.sum_of,
}  # fmt: skip

_ACTIVATIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "relu": ("Relu", ()), "leaky_relu": ("LeakyRelu", ("alpha",)), "elu": ("Elu", ("alpha",)),
    "sigmoid": ("Sigmoid", ()), "tanh": ("Tanh", ()), "softmax": ("Softmax", ("axis",)),
    "log_softmax": ("LogSoftmax", ("axis",)),
}  # fmt: skip


def _pads(settings: dict[str, Any]) -> list[int]:
    return [p[0] for p in settings["pads"]] + [p[1] for p in settings["pads"]]
