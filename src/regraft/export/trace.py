"""From a torch module to a ``Program``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from regraft.errors import InputError, MismatchError
from regraft.export.fold import fold_scales
from regraft.export.ops import ALIASES, Operation, read_call, read_module
from regraft.export.program import Program, Step
from regraft.layers import SparseLayer
from regraft.measure import evaluating


class _Tracer(fx.Tracer):
    """Sees a sparse layer as one operation, as it sees torch's own layers."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, SparseLayer) or super().is_leaf_module(m, module_qualified_name)


class _Shapes(fx.Interpreter):
    """Runs the traced graph once and writes each tensor's shape down."""

    def run_node(self, n: fx.Node) -> Any:
        made = super().run_node(n)
        if isinstance(made, Tensor):
            n.meta["shape"] = tuple(made.shape)
        return made


@torch.no_grad()
def trace(model: nn.Module, input_shape: Sequence[int] | None = None) -> Program:
    """The computation of ``model`` in evaluation mode, as steps on plain float32 arrays.

    Dropout vanishes, and batch normalisation is folded into the layer before it where that is possible.

    Args:
        model: built from Linear, Conv1d/2d/3d (dense or sparse), BatchNorm, pooling, the usual activations,
            flatten, reshape and additions; one tensor in, one out.
        input_shape: shape of one sample; default: what the model's ``spec`` or its first Linear layer says.

    >>> program = trace(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Dropout(), nn.Linear(3, 2)))
    >>> [step.op for step in program.steps], program.output_shape
    (['linear', 'relu', 'linear'], (2,))

    Raises:
        InputError: an operation that cannot be exported, named; a shape that is needed and not known; values
            that are not finite.
        MismatchError: the model does not take samples of ``input_shape``.
    """
    shape = tuple(input_shape) if input_shape is not None else _guess_shape(model)
    with evaluating(model):
        tracer = _Tracer()
        # a bare layer would be traced into its own forward
        root = nn.Sequential(model) if tracer.is_leaf_module(model, "") else model
        try:
            graph = tracer.trace(root)
        except (fx.proxy.TraceError, TypeError, NotImplementedError) as error:
            first = (str(error).splitlines() or [""])[0]
            raise InputError(
                f"the {type(model).__name__} cannot be exported, because what it computes depends on the "
                f"values of its input ({first}): export a module whose forward has no such branches"
            ) from error
        if sum(node.op == "placeholder" for node in graph.nodes) != 1:
            raise InputError(f"the {type(model).__name__} takes more than one input: export takes one")
        module = fx.GraphModule(tracer.root, graph)
        _run_once(model, module, shape)
    steps = _read_graph(root, module.graph)
    if not steps:
        raise InputError(f"the {type(model).__name__} computes nothing that could be exported")
    return Program(shape, fold_scales(steps), _source(model))


def _source(model: nn.Module) -> str:
    spec = getattr(model, "spec", None)
    return str(spec) if isinstance(spec, dict) else type(model).__name__


def _guess_shape(model: nn.Module) -> tuple[int, ...]:
    spec = getattr(model, "spec", None)
    if isinstance(spec, dict) and "input" in spec:
        return tuple(spec["input"])
    if isinstance(spec, dict) and "sizes" in spec:
        return (spec["sizes"][0],)
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            break
        if isinstance(module, nn.Linear):
            return (module.in_features,)
        if isinstance(module, SparseLayer):
            if len(module.weight.shape) != 2:
                break
            return (module.weight.shape[1],)
    raise InputError(
        f"the input shape of the {type(model).__name__} is not known: pass the shape of one sample, as in "
        "input_shape=(1, 28, 28) or --input-shape 1,28,28"
    )


def _run_once(model: nn.Module, module: fx.GraphModule, shape: tuple[int, ...]) -> None:
    like = next(model.parameters(), torch.zeros(()))
    try:  # two samples, so that the batch dimension can be told from the others
        _Shapes(module).run(like.new_zeros((2, *shape)))
    except (RuntimeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise MismatchError(
            f"the {type(model).__name__} does not take samples of shape {shape} ({first}): pass the shape of "
            "one sample, without the batch"
        ) from error


def _read_graph(model: nn.Module, graph: fx.Graph) -> list[Step]:
    modules = dict(model.named_modules())
    numbers: dict[fx.Node, int] = {}
    steps: list[Step] = []
    result: object = None
    for node in graph.nodes:
        if node.op == "placeholder":
            numbers[node] = 0
        elif node.op == "output":
            result = node.args[0]
        elif "shape" in node.meta:
            operation = _read_node(node, modules)
            if operation.op in ALIASES:
                numbers[node] = numbers[operation.inputs[0]]
                continue
            steps.append(_step(node, operation, numbers, len(steps) + 1))
            numbers[node] = len(steps)
    if not isinstance(result, fx.Node) or numbers.get(result) is None:
        raise InputError(f"the {type(model).__name__} must give one tensor to be exported")
    last = numbers[result]
    if steps and last != steps[-1].output:
        steps = steps[:last]  # what comes after the result in order is not used by it
    return steps


def _read_node(node: fx.Node, modules: dict[str, nn.Module]) -> Operation:
    if node.op == "call_module":
        operation = read_module(str(node.target), modules[str(node.target)], node)
    elif node.op in ("call_function", "call_method"):
        operation = read_call(node)
    else:
        raise InputError(f"the model uses its parameter '{node.target}' directly, which export cannot follow")
    return operation


def _step(node: fx.Node, operation: Operation, numbers: dict[fx.Node, int], output: int) -> Step:
    shape = cast("tuple[int, ...]", node.meta["shape"])
    where = str(node.target) if node.op == "call_module" else node.name
    if not shape or shape[0] != 2:
        raise InputError(
            f"'{where}' mixes the samples of a batch (two samples become {shape}): cannot export"
        )
    unknown = [str(i) for i in operation.inputs if i not in numbers]
    if unknown:
        raise InputError(
            f"'{where}' takes {unknown[0]}, which is no activation of the network: cannot export"
        )
    return Step(
        operation.op, where, tuple(numbers[i] for i in operation.inputs), output, shape[1:],
        operation.settings, operation.weight, operation.bias, operation.factor,
    )  # fmt: skip
