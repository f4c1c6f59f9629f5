"""Which unit of one network goes where in another: coordinate descent over the groups of units."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regraft.graph import Graph, Group, Slot
from regraft.merging.align.entries import MATCHED, Entries, Order, inner, matched_tensors, sources

Likeness = NDArray[np.float64]
"""[units, units]: how much unit u of the reference (rows) and unit v of the other network have in common."""


def assign(likeness: Likeness) -> Tensor:
    """For each unit of the reference a unit of the other network, so that their likeness is largest in sum:
    a linear assignment problem, solved exactly.

    >>> assign(np.array([[0.0, 2.0], [3.0, 4.0]])).tolist()
    [1, 0]
    """
    from scipy.optimize import linear_sum_assignment

    return torch.from_numpy(linear_sum_assignment(likeness, maximize=True)[1]).long()


def matched(bundle: Sequence[Group], likeness: Mapping[str, Likeness]) -> dict[str, Tensor]:
    """The best order of each of the groups that move together, by name.

    Units of heads are matched within each pair of heads first; two heads are as alike as their units are in
    sum, over all groups of the attention, when these are in their best order; and then heads are assigned to
    heads. So the best of all orders that keep heads whole is found exactly, by ``heads^2`` assignments of the
    size of a head.
    """
    heads = bundle[0].heads
    if heads is None:
        return {group.name: assign(likeness[group.name]) for group in bundle}
    n = heads.count
    alike = np.zeros((n, n))
    within: dict[str, list[list[Tensor]]] = {}
    for group in bundle:
        width = group.units // n
        blocks = likeness[group.name].reshape(n, width, n, width).swapaxes(1, 2)
        orders = [[assign(blocks[a, b]) for b in range(n)] for a in range(n)]
        within[group.name] = orders
        for a in range(n):
            for b in range(n):
                alike[a, b] += blocks[a, b][np.arange(width), orders[a][b].numpy()].sum()
    chosen = assign(alike).tolist()
    return {
        group.name: torch.cat(
            [b * (group.units // n) + within[group.name][a][b] for a, b in enumerate(chosen)]
        )
        for group in bundle
    }


class Pair:
    """A reference and another network of the same groups, compared by the values of their tensors."""

    def __init__(self, graph: Graph, reference: Mapping[str, Entries], other: Mapping[str, Entries]) -> None:
        self.graph = graph
        self._reference, self._other = reference, other
        self._rows: dict[Slot, Any] = {}
        self._groups = {
            name: {g.name for axis in range(len(e.shape)) for g, _ in graph.along(name, axis)}
            & {g.name for g in graph.free}
            for name, e in reference.items()
        }

    def likeness(self, group: Group, order: Order, settled: Collection[str] | None = None) -> Likeness:
        """Sum over the group's slots of W_a P W_b^T, where P moves the other axes of ``W_b`` by ``order``.

        Sparse tensors are multiplied as they are: nothing larger than [units, units] is ever dense.

        Args:
            settled: names of groups; tensors along which units of any other group lie are left out.
        """
        found = np.zeros((group.units, group.units))
        for slot in group.of_kind(*MATCHED):
            if settled is None or self._groups[slot.tensor] - {group.name} <= set(settled):
                if slot not in self._rows:
                    self._rows[slot] = self._reference[slot.tensor].rows(slot, group.units)
                entries = self._other[slot.tensor]
                across = sources(self.graph, order, slot.tensor, entries.shape)
                across.pop(slot.axis, None)
                found += _product(self._rows[slot], entries.moved(across).rows(slot, group.units))
        return found

    def total(self, order: Order, groups: Sequence[Group] | None = None) -> float:
        """Sum over all tensors, or those of some groups, of <W_a, W_b> with the units of ``W_b`` in
        ``order``."""
        names = self._reference if groups is None else matched_tensors(groups)
        return sum(self._common(name, order) for name in names)

    def _common(self, name: str, order: Order) -> float:
        return inner(self._reference[name], self._other[name].ordered(self.graph, order, name))

    def neighbours(self, bundle: Sequence[Group]) -> set[str]:
        """Names of the groups whose likeness depends on the order of these."""
        found: set[str] = set()
        for group in bundle:
            for slot in group.of_kind(*MATCHED):
                axes = [s.axis for s in group.slots if s.tensor == slot.tensor]
                found |= self._groups[slot.tensor] - ({group.name} if len(set(axes)) == 1 else set())
        return found

    def known_share(self, bundle: Sequence[Group], settled: Collection[str]) -> float:
        """Share of the squared weights of some groups that lie along settled groups only, in [0, 1]."""
        own = {group.name for group in bundle}
        squares = {
            name: float(self._reference[name].values.square().sum())
            for name in matched_tensors(bundle)
            if len(self._reference[name].shape) > 1
        }
        known = sum(v for name, v in squares.items() if self._groups[name] - own <= set(settled))
        return known / (sum(squares.values()) or 1.0)


def _product(a: Any, b: Any) -> Likeness:
    """a b^T as a dense array, for any mixture of NumPy arrays and sparse SciPy arrays."""
    if isinstance(a, np.ndarray) and not isinstance(b, np.ndarray):
        return np.ascontiguousarray(_product(b, a).T)
    product = a @ b.T
    return product if isinstance(product, np.ndarray) else product.toarray()


def unmoved(graph: Graph) -> dict[str, Tensor]:
    """All units where they are."""
    return {group.name: torch.arange(group.units) for group in graph.free}


def grown(pair: Pair, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """An order found group by group, each by the tensors that lie between it and groups that have their order
    already. The network's inputs and outputs have theirs. Groups whose heads move alike are found together.

    Args:
        generator: draws the next group, in proportion to the share of its weights that are known; without
            one it is the group with the largest.
    """
    order = unmoved(pair.graph)
    waiting = list(pair.graph.bundles)
    settled: set[str] = set()
    while waiting:
        shares = torch.tensor([pair.known_share(bundle, settled) for bundle in waiting])
        if generator is None or not bool(shares.any()):
            at = int(shares.argmax())
        else:
            at = int(torch.multinomial(shares.to(generator.device), 1, generator=generator))
        bundle = waiting.pop(at)
        order |= matched(bundle, {group.name: pair.likeness(group, order, settled) for group in bundle})
        settled |= {group.name for group in bundle}
    return order


def descend(
    pair: Pair, start: Order, generator: torch.Generator, *, max_passes: int, tolerance: float
) -> tuple[dict[str, Tensor], float]:
    """Improve an order group by group, in random order, until a pass over all groups brings no more than
    ``tolerance`` times the total (Ainsworth et al. 2022, arXiv:2209.04836, algorithm 1).

    A group is looked at again only when one that shares a tensor with it has moved. A step that would lower
    the total, which can happen where one tensor has the same units along two axes, is not taken.

    Returns:
        the order and its total, which is not below that of ``start``.
    """
    order, total = dict(start), pair.total(start)
    stale, bundles = {group.name for group in pair.graph.free}, pair.graph.bundles
    for _ in range(max_passes):
        before = total
        for at in torch.randperm(len(bundles), generator=generator, device=generator.device).tolist():
            bundle = bundles[at]
            names = {group.name for group in bundle}
            if not names & stale:
                continue
            stale -= names
            better = order | matched(bundle, {group.name: pair.likeness(group, order) for group in bundle})
            gain = pair.total(better, bundle) - pair.total(order, bundle)
            if gain > 1e-12 * abs(total):  # more than rounding
                order, total = better, total + gain
                stale |= pair.neighbours(bundle)
        if not stale or total - before <= tolerance * abs(total):
            break
    return order, total
