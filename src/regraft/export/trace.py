"""From a torch module to a ``Program``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import fx, nn

from regraft.errors import InputError
from regraft.export.fold import fold_scales
from regraft.export.ops import ALIASES, Operation, read_call, read_module
from regraft.export.program import Program, Step
from regraft.graph.tracing import sample_shape, traced


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
    shape = sample_shape(model, input_shape)
    module = traced(model, shape, purpose="be exported")
    steps = _read_graph(module, type(model).__name__)
    if not steps:
        raise InputError(f"the {type(model).__name__} computes nothing that could be exported")
    return Program(shape, fold_scales(steps), _source(model))


def _source(model: nn.Module) -> str:
    spec = getattr(model, "spec", None)
    return str(spec) if isinstance(spec, dict) else type(model).__name__


def _read_graph(module: fx.GraphModule, label: str) -> list[Step]:
    modules = dict(module.named_modules())
    numbers: dict[fx.Node, int] = {}
    steps: list[Step] = []
    result: object = None
    for node in module.graph.nodes:
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
        raise InputError(f"the {label} must give one tensor to be exported")
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
