"""Sparse biases: the smallest are set to zero (thesis 1, section 10.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from regraft import select
from regraft.errors import check_density
from regraft.layers import SPARSE_TYPE, SparseLayer
from regraft.merging.blocks import Piece
from regraft.merging.keep import Best, magnitude
from regraft.merging.networks import Layer


def check_bias_density(density: float | None) -> float | None:
    """``density`` as it is, if it is None or in (0, 1], else an InputError."""
    return None if density is None else check_density(density, "bias_density")


def bias_counts(layers: Sequence[Layer], density: float | None) -> dict[str, int]:
    """How many entries of each bias stay: ``round(density * size)`` for those of linear and convolutional
    layers, which are called as their weight is; none are named without a density. Scales and shifts of
    normalisations are no such biases: their layer's weight has one dimension.
    """
    if density is None:
        return {}
    weights = {layer.name.rpartition(".")[0] for layer in layers if layer.kind == "weight" and layer.prunable}
    pairs = [(layer, layer.name.rpartition(".")) for layer in layers if layer.kind == "bias"]
    return {x.name: round(density * x.size) for x, (of, _, part) in pairs if part == "bias" and of in weights}


def kept_biases(layer: Layer, pieces: Iterator[Piece], count: int, seed: int) -> Iterator[Piece]:
    """A bias of which the ``count`` entries of largest magnitude stay; all others are 0."""
    best = Best([layer], count, magnitude, seed)
    best.add(0, pieces)
    ((index, values),) = best.result()
    whole = torch.zeros(layer.size, dtype=values.dtype)
    whole[index.long()] = values
    yield torch.arange(layer.size), whole


@torch.no_grad()
def cut_biases(model: nn.Module, density: float, generator: torch.Generator | None = None) -> None:
    """In each bias of a linear or convolutional layer keep ``round(density * size)`` entries, those of the
    largest magnitude, and set the others to 0, in place.

    Raises:
        InputError: density outside (0, 1], or a bias that holds NaN.
    """
    share = check_density(density, "bias_density")
    layers = {n: m for n, m in model.named_modules() if type(m) in SPARSE_TYPE or isinstance(m, SparseLayer)}
    biases: Mapping[str, Tensor] = {n: m.bias for n, m in layers.items() if isinstance(m.bias, Tensor)}
    counts = {n: round(share * b.numel()) for n, b in biases.items()}
    kept = select.per_layer({n: b.abs() for n, b in biases.items()}, counts, generator=generator)
    for name, bias in biases.items():
        gone = torch.ones_like(bias, dtype=torch.bool)
        gone[kept[name]] = False
        bias[gone] = 0
