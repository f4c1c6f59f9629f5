"""``Entries``: the values of one tensor and where they are, whose units can be moved and compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regraft import positions
from regraft.graph import Graph, Group, Kind, Slot
from regraft.merging.networks import open_network

Order = Mapping[str, Tensor]
"""For each group by name, which of its units comes first, second, ...: int64 [units]. A group that is not
named keeps its units where they are."""

MATCHED: tuple[Kind, ...] = ("make", "read", "through", "bias", "norm")
"""Kinds of slots whose values say which units are alike. Running statistics are left out: they say how a
network's data was scaled rather than what a unit does, and spoil the matching."""


@dataclass(frozen=True, eq=False)
class Entries:
    """A tensor, dense or sparse.

    Attributes:
        shape: the dense shape.
        index: flat positions of the values, int64 [nnz], increasing; None: all positions.
        values: float64, [nnz] or of the dense shape.
    """

    shape: tuple[int, ...]
    index: Tensor | None
    values: Tensor

    def moved(self, sources: Mapping[int, Tensor]) -> Entries:
        """The tensor whose j-th slice along an axis is the slice ``sources[axis][j]`` of this one.

        >>> row = Entries((1, 3), torch.tensor([0, 2]), torch.tensor([5.0, 7.0]))
        >>> row.moved({1: torch.tensor([2, 1, 0])}).values.tolist()
        [7.0, 5.0]
        """
        if self.index is None:
            values = self.values
            for axis, source in sources.items():
                values = values.index_select(axis, source)
            return Entries(self.shape, None, values)
        index = self.index
        for axis, source in sources.items():
            stride, size = math.prod(self.shape[axis + 1 :]), self.shape[axis]
            at = index // stride % size
            index = index + (torch.argsort(source)[at] - at) * stride
        index, order = index.sort()
        return Entries(self.shape, index, self.values[order])

    def ordered(self, graph: Graph, order: Order, name: str) -> Entries:
        """The tensor with the units along its axes in ``order``; ``name`` is its name in the graph."""
        return self.moved(sources(graph, order, name, self.shape))

    def rows(self, slot: Slot, units: int) -> Any:
        """Units of a slot against everything else: [units, rest], a NumPy array or, where the tensor is
        sparse, a SciPy CSR array. Two tensors of one shape have the same columns."""
        from scipy import sparse

        first, last = slot.offset, slot.offset + units * slot.repeat
        if self.index is None:
            return self.values.movedim(slot.axis, 0)[first:last].reshape(units, -1).numpy()
        stride, size = math.prod(self.shape[slot.axis + 1 :]), self.shape[slot.axis]
        at = self.index // stride % size
        inside = (at >= first) & (at < last)
        index, at, values = self.index[inside], at[inside] - first, self.values[inside]
        rest = math.prod(self.shape) // max(size, 1)
        column = at % slot.repeat * rest + index // (stride * size) * stride + index % stride
        place = ((at // slot.repeat).numpy(), column.numpy())
        return sparse.csr_array((values.numpy(), place), shape=(units, slot.repeat * rest))


def entries_of(model: nn.Module, graph: Graph, number: int) -> dict[str, Entries]:
    """The tensors whose values say which units are alike, by name.

    Args:
        number: of the model among those to align, from 1, for errors.

    Raises:
        InputError: NaN or infinite values, complex ones.
    """
    network = open_network(model, number)
    found = {}
    for name in matched_tensors(graph.free):
        part = network.parts[name]
        values = network.values(name, 0, part.stored).double()
        index = network.index(name, 0, part.stored) if part.sparse else None
        found[name] = Entries(part.shape, index, values if index is not None else values.view(part.shape))
    return found


def matched_tensors(groups: Iterable[Group]) -> list[str]:
    """Names of the tensors that the groups' units are compared by, each once."""
    return list(dict.fromkeys(slot.tensor for group in groups for slot in group.of_kind(*MATCHED)))


def sources(graph: Graph, order: Order, tensor: str, shape: Sequence[int]) -> dict[int, Tensor]:
    """For each axis of a tensor along which units move: which of its slices comes first, second, ...

    >>> hidden = Group("0", 2, (Slot("2.weight", 1, "read", repeat=2),))
    >>> sources(Graph((hidden,), (3,)), {"0": torch.tensor([1, 0])}, "2.weight", (5, 4))
    {1: tensor([2, 3, 0, 1])}
    """
    found: dict[int, Tensor] = {}
    for axis, size in enumerate(shape):
        for group, slot in graph.along(tensor, axis):
            if group.name in order:
                source = found.setdefault(axis, torch.arange(size))
                first = slot.offset + order[group.name] * slot.repeat
                moved = (first[:, None] + torch.arange(slot.repeat)).flatten()
                source[slot.offset : slot.offset + moved.numel()] = moved
    return found


def mean(tensors: Sequence[Entries]) -> Entries:
    """The mean of tensors of one shape; sparse where all are."""
    if len(tensors) == 1:
        return tensors[0]
    shape, share = tensors[0].shape, 1 / len(tensors)
    if any(t.index is None for t in tensors):
        total = torch.zeros(shape, dtype=torch.float64)
        for t in tensors:
            if t.index is None:
                total += t.values
            else:
                total.view(-1)[t.index] += t.values
        return Entries(shape, None, total * share)
    everywhere = torch.cat([t.index for t in tensors if t.index is not None])
    index, place = torch.unique(everywhere, return_inverse=True)
    total = torch.zeros(index.numel(), dtype=torch.float64)
    return Entries(shape, index, total.index_add_(0, place, torch.cat([t.values for t in tensors])) * share)


def inner(a: Entries, b: Entries) -> float:
    """Sum of the products of the values at each position."""
    if a.index is None and b.index is None:
        return float((a.values * b.values).sum())
    if a.index is None:
        a, b = b, a
    assert a.index is not None
    if b.index is None:
        return float((a.values * b.values.reshape(-1)[a.index]).sum())
    if a.index.numel() > b.index.numel():
        a, b = b, a
    assert a.index is not None
    assert b.index is not None
    common = positions.contains(b.index, a.index)
    return float((a.values[common] * b.values[torch.searchsorted(b.index, a.index[common])]).sum())
