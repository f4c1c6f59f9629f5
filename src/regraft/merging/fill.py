"""Merged parts -> a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from regraft.errors import MismatchError
from regraft.layers import sparsify
from regraft.merging.networks import Layer
from regraft.topology import Topology
from regraft.weight import SparseWeight


@torch.no_grad()
def fill(
    model: nn.Module,
    layers: Sequence[Layer],
    parts: Mapping[str, tuple[Tensor, Tensor]],
    sparse: set[str],
) -> nn.Module:
    """Put merged positions and values into ``model``, in place. Returns the model.

    Args:
        layers: the parts' shapes.
        parts: positions and values of each part, vectors.
        sparse: parts that are sparse in the merged network; the model's dense layers become sparse there.

    Raises:
        MismatchError: the model lacks a part, or has it in another shape.
    """
    shapes = {layer.name: layer.shape for layer in layers}
    modules = dict(model.named_modules())
    dense = {n: (shapes[n], parts[n][0]) for n in sorted(sparse) if n not in modules and n in shapes}
    _check(model, shapes)
    if dense:
        sparsify(model, topology=Topology(dense))
        modules = dict(model.named_modules())
    state = model.state_dict()
    for name, (index, values) in parts.items():
        weight = modules.get(name)
        if isinstance(weight, SparseWeight):
            weight.replace(index, values)
        else:
            state[name].copy_(values.view(shapes[name]))
    return model


def _check(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    weights = {n: tuple(m.shape) for n, m in model.named_modules() if isinstance(m, SparseWeight)}
    have = {n: tuple(t.shape) for n, t in model.state_dict().items() if isinstance(t, Tensor)} | weights
    for name, shape in shapes.items():
        if name not in have or have[name] != shape:
            there = f"has it in shape {have[name]}" if name in have else "lacks it"
            raise MismatchError(
                f"the networks have '{name}' of shape {shape}, but the {type(model).__name__} to fill {there}"
                ": pass a model of their architecture"
            )
