"""A network as one ``.npz`` file, for the runtime that needs NumPy only (``numpy_runtime.py``)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from regraft.errors import InputError
from regraft.export.numpy_runtime import FORMAT
from regraft.export.pack import Packed, layout_of, pack
from regraft.export.program import Program, Step
from regraft.export.trace import trace
from regraft.files import PathLike, atomic_write


def to_npz(
    model: nn.Module,
    path: PathLike,
    *,
    input_shape: Sequence[int] | None = None,
    values: str = "float32",
) -> Program:
    """Write ``model`` for the NumPy runtime; returns what was exported.

    Args:
        path: the file to write, whole or not at all.
        input_shape: shape of one sample; default as in ``trace``.
        values: ``"float32"``, ``"float16"`` or ``"int8"`` (one scale for each output unit).

    >>> import tempfile, torch
    >>> from regraft.export.numpy_runtime import Network
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = to_npz(model, f"{folder}/m.npz")
    ...     y = Network(f"{folder}/m.npz")(np.ones((2, 4)))
    >>> torch.allclose(torch.from_numpy(y), model(torch.ones(2, 4)), atol=1e-6)
    True

    Raises:
        InputError: the model has an operation that cannot be exported; an unknown kind of values.
        FileError: the file cannot be written.
    """
    program = trace(model, input_shape)
    arrays: dict[str, Any] = {}
    described = [_describe(i, step, program, values, arrays) for i, step in enumerate(program.steps)]
    text = {
        "format": FORMAT, "input_shape": program.input_shape, "source": program.source, "steps": described,
    }  # fmt: skip
    arrays["program"] = np.frombuffer(json.dumps(text).encode(), np.uint8)
    with atomic_write(path) as file:
        np.savez(file, **arrays)
    return program


def _describe(i: int, step: Step, program: Program, values: str, arrays: dict[str, Any]) -> dict[str, Any]:
    if step.op in ("conv", "max_pool", "avg_pool") and len(step.settings["kernel"]) > 2:
        raise InputError(
            f"layer '{step.where}' has three spatial dimensions, but the NumPy runtime knows one and two: "
            "export to ONNX"
        )
    described: dict[str, Any] = {
        "op": step.op, "where": step.where, "inputs": step.inputs, "output": step.output,
        "shape": step.shape, "settings": step.settings,
    }  # fmt: skip
    parts: dict[str, Any] = {"bias": step.bias, "factor": step.factor}
    if step.weight is not None:
        packed: Packed = pack(step.weight, layout_of(step, program), values, where=step.where)
        described |= {"layout": packed.layout, "coding": packed.coding, "weight_shape": step.weight.shape}
        parts |= {"counts": packed.counts, "at": packed.at, "values": packed.values, "scales": packed.scales}
    kept = {name: array for name, array in parts.items() if array is not None}
    described["arrays"] = {name: f"{i}.{name}" for name in kept}
    arrays.update({f"{i}.{name}": array for name, array in kept.items()})
    return described
