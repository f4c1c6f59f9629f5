"""What merges of the same networks by different rules share: the union of their positions, and where each
network's entries lie in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from regraft.merging import combine, keys
from regraft.merging.blocks import checked, fold
from regraft.merging.combine import Combine
from regraft.merging.networks import Layer, Network


@dataclass(frozen=True, eq=False)
class Union:
    """The entries of one weight in all networks together.

    Attributes:
        layer: the weight.
        index: int64 [m], the union of the networks' positions, increasing.
        at: for each network, where its entries lie in ``index``: int64 addresses, or a slice where it has
        all. values: for each network, the values of its entries.

    >>> from torch import nn
    >>> from regraft.merging.networks import layers_of, opened
    >>> with opened([nn.Linear(2, 1), nn.Linear(2, 1)]) as networks:
    ...     union = Union.of(layers_of(networks)[0], networks)
    >>> union.index.tolist()
    [0, 1]
    """

    layer: Layer
    index: Tensor
    at: tuple[Tensor | slice, ...]
    values: tuple[Tensor, ...]

    @classmethod
    def of(cls, layer: Layer, networks: Sequence[Network]) -> Union:
        """The union of a weight of networks of one architecture.

        Raises:
            InputError: NaN or infinite weights.
        """
        values = tuple(n.values(layer.name, 0, k) for n, k in zip(networks, layer.stored, strict=True))
        own = [
            n.index(layer.name, 0, k) if n.parts[layer.name].sparse else None
            for n, k in zip(networks, layer.stored, strict=True)
        ]
        sparse = [index for index in own if index is not None]
        full = len(sparse) < len(own) or any(index.numel() == layer.size for index in sparse)
        everything = slice(0, layer.size)
        at: list[Tensor | slice]
        if full:
            index = torch.arange(layer.size)
            at = [everything if i is None or i.numel() == layer.size else i for i in own]
        elif 16 * sum(layer.stored) >= layer.size:  # as many steps as positions, but no sorting
            there = torch.zeros(layer.size, dtype=torch.bool)
            for one in sparse:
                there[one] = True
            index = there.nonzero().squeeze(1)
            rank = torch.empty(layer.size, dtype=torch.int64)
            rank[index] = torch.arange(index.numel())
            at = [rank.index_select(0, one) for one in sparse]
        else:
            index = torch.unique(torch.cat(sparse))
            at = [torch.searchsorted(index, one) for one in sparse]
        at = [everything if isinstance(a, Tensor) and a.numel() == index.numel() else a for a in at]
        return cls(layer, index, tuple(at), values)

    def merged(self, rules: Sequence[Combine], seed: int) -> list[Tensor]:
        """The merged values [m] by each rule, in the weight's type, equal to those of ``merge``.

        Rules that fold alike (average and addition) are folded once.

        Raises:
            InputError: a rule gives NaN or values that the type cannot hold.
        """
        folded: dict[object, Tensor] = {}
        networks = torch.tensor(len(self.values))
        found = []
        for rule in rules:
            if rule.update not in folded:
                folded[rule.update] = self._folded(rule, seed)
            merged = rule.finish(folded[rule.update], networks)
            found.append(checked(merged, self.layer, rule))
        return found

    def _folded(self, rule: Combine, seed: int) -> Tensor:
        m = self.index.numel()
        total = torch.zeros(m, dtype=torch.float64)
        count = torch.zeros(m, dtype=torch.int32)
        mark = None if rule.counted else torch.ones(m, dtype=torch.int32)
        for i, (at, values) in enumerate(zip(self.at, self.values, strict=True)):
            if rule.update is combine.nothing.update:
                break  # it stays 0
            start = keys.base(seed, self.layer.name, i)
            # the first arrival takes its places whatever is drawn: 0 does as well, and costs no hashing
            zeros = torch.zeros_like(values, dtype=torch.float64) if i == 0 else None

            def draw(start: int = start, at: Tensor | slice = at, zeros: Tensor | None = zeros) -> Tensor:
                return keys.uniform(start, self.index[at]) if zeros is None else zeros

            fold(rule, total, count, at, values, draw, mark)
        return total

    def strongest(self, values: Tensor, k: int, seed: int) -> Tensor | None:
        """Where the k entries of largest magnitude lie in the union, int64 [k], increasing; None for all.

        Equal magnitudes are decided as ``merge`` decides them: by a hash of seed, weight and position.
        """
        m = self.index.numel()
        if k >= m:
            return None
        if k == 0:
            return torch.empty(0, dtype=torch.int64)
        size = values.abs()
        ordered = size.numpy().copy()
        ordered.partition(m - k)
        threshold = float(ordered[m - k])
        good = size > threshold
        room = k - int(good.sum())
        tied = (size == threshold).nonzero().squeeze(1)
        if tied.numel() > room:
            drawn = keys.hashed(keys.base(seed, self.layer.name), self.index[tied])
            tied = tied[_lowest(drawn, room)]
        good[tied] = True
        return good.nonzero().squeeze(1)

    def shared(self, kept: Tensor | None) -> list[tuple[int, int]]:
        """For each network, how many positions the kept entries share with it, and how many both have."""
        n = self.index.numel() if kept is None else kept.numel()
        counts = []
        for at, values in zip(self.at, self.values, strict=True):
            if isinstance(at, slice):
                both = n
            elif kept is None:
                both = at.numel()
            else:
                there = torch.zeros(self.index.numel(), dtype=torch.bool)
                there[at] = True
                both = int(there.index_select(0, kept).sum())
            counts.append((both, n + values.numel() - both))
        return counts


def _lowest(drawn: Tensor, room: int) -> Tensor:
    """Addresses of the ``room`` lowest numbers; among equal ones the first."""
    numbers = drawn.numpy()
    chosen = np.argpartition(numbers, room)[:room]
    highest = numbers[chosen].max() if room else -1
    if room and np.count_nonzero(numbers == highest) > 1:  # one in 2^53
        return torch.argsort(drawn, stable=True)[:room]
    return torch.from_numpy(chosen)
