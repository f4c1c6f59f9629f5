"""How much two tickets share, layer by layer, beside what chance would give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from regraft.topology import Topology


@dataclass(frozen=True)
class LayerOverlap:
    """The connections of one weight, or of all, in two tickets.

    Attributes:
        name: of the weight.
        kept: connections of the one and the other.
        shared, union: connections in both, and in at least one.
        expected: Jaccard index that independent random choices of as many connections would have on average
            (the mean of the intersection over the mean of the union).
    """

    name: str
    kept: tuple[int, int]
    shared: int
    union: int
    expected: float

    @property
    def jaccard(self) -> float:
        """shared / union; 1 where both are empty."""
        return self.shared / self.union if self.union else 1.0

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name, "kept": list(self.kept), "shared": self.shared, "union": self.union,
            "jaccard": self.jaccard, "expected_jaccard": self.expected,
        }  # fmt: skip


@dataclass(frozen=True)
class Overlap:
    """What ``overlap`` finds.

    Attributes:
        layers: each weight, in order.
        whole: all weights together, as one.
    """

    layers: tuple[LayerOverlap, ...]
    whole: LayerOverlap

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        whole = {k: v for k, v in self.whole.plain().items() if k != "name"}
        return {**whole, "layers": [layer.plain() for layer in self.layers]}


def overlap(a: Topology, b: Topology) -> Overlap:
    """The Jaccard index of two tickets of one architecture, of each layer and of the whole.

    >>> import torch
    >>> a = Topology({"w": ((2, 4), torch.tensor([0, 1, 2, 3]))})
    >>> b = Topology({"w": ((2, 4), torch.tensor([2, 3, 4, 5]))})
    >>> found = overlap(a, b)
    >>> round(found.whole.jaccard, 3), round(found.whole.expected, 3)
    (0.333, 0.333)

    Raises:
        MismatchError: they are not of one architecture.
    """
    counts = a.overlap(b)
    layers = tuple(
        LayerOverlap(
            name, (a[name].nnz, b[name].nnz), *counts[name],
            expected=1.0 - Topology({name: a[name]}).expected_nnstd(Topology({name: b[name]})),
        )
        for name in a
    )  # fmt: skip
    whole = LayerOverlap(
        "whole", (a.nnz, b.nnz), sum(x.shared for x in layers), sum(x.union for x in layers),
        expected=1.0 - a.expected_nnstd(b),
    )  # fmt: skip
    return Overlap(layers, whole)
