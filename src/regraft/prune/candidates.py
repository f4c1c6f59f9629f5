"""Which connections may be kept: those of the sparse weights, or every position of a dense model's layers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from regraft.evolve.named import Patterns, sparse_weights, unwrapped
from regraft.layers import sparsifiable, sparsify
from regraft.topology import Topology
from regraft.weight import SparseWeight


def candidates(
    model: nn.Module, include: Patterns = ("*",), exclude: Patterns = ()
) -> tuple[nn.Module, dict[str, SparseWeight]]:
    """A copy of the model in which every candidate is a connection, and its weights to prune by name.

    A model that has sparse weights offers their connections and nothing else; its dense layers stay dense. A
    dense model offers every position of its Linear and Conv layers. ``include`` and ``exclude`` are the
    patterns of ``sparsify``; layers left out stay as they are.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> copied, weights = candidates(model, exclude="2")
    >>> {name: w.nnz for name, w in weights.items()}, type(copied[2]).__name__, type(model[0]).__name__
    ({'0.weight': 12}, 'Linear', 'Linear')

    Raises:
        InputError: no weight to prune, or a pattern that matches none.
    """
    model = unwrapped(model)
    if is_sparse(model):
        copied = copy.deepcopy(model)
        return copied, sparse_weights(copied, include, exclude)
    layers = sparsifiable(model, include, exclude)
    everywhere = {}
    for name, layer in layers.items():
        weight = cast(Tensor, layer.weight)
        everywhere[f"{name}.weight"] = (tuple(weight.shape), torch.arange(weight.numel()))
    copied = sparsify(copy.deepcopy(model), topology=Topology(everywhere), include=include, exclude=exclude)
    return copied, sparse_weights(copied)


def is_sparse(model: nn.Module) -> bool:
    """Whether the model has sparse weights already."""
    return any(isinstance(m, SparseWeight) for m in model.modules())


def sizes_of(weights: Mapping[str, SparseWeight]) -> dict[str, int]:
    """Number of positions of each weight."""
    return {name: w.size for name, w in weights.items()}
