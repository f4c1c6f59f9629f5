"""One layer of several networks -> merged entries, a block of positions at a time.

Memory is a block, whatever the number and the size of the networks; time is O(entries). Where the networks
together fill the positions well, a block is a fixed range of them, addressed directly. Where positions are
far apart, a block ends where the first network's buffer ends, and is addressed through the sorted union.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from regraft.errors import InputError
from regraft.merging import combine, keys
from regraft.merging.combine import Combine, Rule
from regraft.merging.networks import MANY, Layer, Network

BLOCK = 2**18
"""Positions of a block that is addressed directly, and buffered entries of one that is not."""

PIECE = 2**15
"""Most entries that are handed on at once."""

Piece = tuple[Tensor, Tensor]
"""Positions, int64 [m], increasing, and merged values, [m], in the layer's type."""


class _Folded:
    """A block of a rule that folds: a running value and a count for each address."""

    def __init__(self, rule: Combine, over: str, width: int, networks: int) -> None:
        self._rule, self._over, self._networks = rule, over, torch.tensor(networks)
        self._total = torch.zeros(width, dtype=torch.float64)
        small = networks < 256
        self._count = torch.zeros(width, dtype=torch.uint8 if small else torch.int32)
        # where nothing looks at the counts, they only say whether a position is there
        self._mark = None if rule.counted or over == "present" else torch.ones_like(self._count)

    def clear(self) -> None:
        self._total.zero_()
        self._count.zero_()

    def add(self, network: int, at: Tensor | slice, values: Tensor, draw: combine.Uniform) -> None:
        fold(self._rule, self._total, self._count, at, values, draw, self._mark)

    def present(self, start: int, stop: int) -> Tensor:
        return start + self._count[start:stop].nonzero().squeeze(1)

    def merged(self, at: Tensor) -> Tensor:
        divisor = self._networks if self._over == "networks" else self._count.index_select(0, at)
        return self._rule.finish(self._total.index_select(0, at), divisor)


def fold(
    rule: Combine,
    total: Tensor,
    count: Tensor,
    at: Tensor | slice,
    values: Tensor,
    draw: combine.Uniform,
    mark: Tensor | None = None,
    *,
    weight: int = 1,
) -> None:
    """Fold one network's entries at the addresses ``at`` into ``total`` (float64) and ``count``, in place.

    With ``mark``, a vector of ones, the count only becomes 1. With a ``weight``, for averages alone, the
    network counts for so many.
    """
    new = values.double() if weight == 1 else values.double() * weight
    if isinstance(at, slice):
        count[at] += weight
        total[at] = rule.update(total[at], new, count[at], draw)
        return
    more = count.gather(0, at) + weight if mark is None else mark[: at.numel()]
    count.scatter_(0, at, more)
    total.scatter_(0, at, rule.update(total.index_select(0, at), new, more, draw))


class _Stacked:
    """A block of a rule that sees all networks at once: one row for each."""

    def __init__(self, rule: combine.Stacked, width: int, networks: int) -> None:
        self._rule = rule
        self._values = torch.zeros(networks, width, dtype=torch.float64)
        self._present = torch.zeros(networks, width, dtype=torch.bool)

    def clear(self) -> None:
        self._values.zero_()
        self._present.zero_()

    def add(self, network: int, at: Tensor | slice, values: Tensor, draw: combine.Uniform) -> None:
        self._values[network, at] = values.double()
        self._present[network, at] = True

    def present(self, start: int, stop: int) -> Tensor:
        return start + self._present[:, start:stop].any(0).nonzero().squeeze(1)

    def merged(self, at: Tensor) -> Tensor:
        merged = self._rule(self._values[:, at], self._present[:, at])
        if not isinstance(merged, Tensor) or merged.shape != at.shape:
            got = tuple(merged.shape) if isinstance(merged, Tensor) else type(merged).__name__
            raise InputError(
                f"the rule {combine.name_of(self._rule)} returned {got}, but must return one value for each "
                f"of the {at.numel()} positions"
            )
        return merged


def merged_pieces(
    layer: Layer,
    networks: Sequence[Network],
    rule: Rule,
    *,
    over: str = "networks",
    seed: int = 0,
    block: int = BLOCK,
) -> Iterator[Piece]:
    """The union of the networks' entries in order of position, combined by ``rule``, in pieces.

    Raises:
        InputError: the rule gives NaN or infinite values, or values that the layer's type cannot hold.
        FileError: a file is damaged.
    """
    bases = [keys.base(seed, layer.name, i) for i in range(len(networks))]
    entries = max(1, block if isinstance(rule, Combine) else block // len(networks))
    dense = any(not network.parts[layer.name].sparse for network in networks)
    if dense or 16 * sum(layer.stored) >= layer.size:
        yield from _by_range(layer, networks, rule, over, bases, entries)
    else:
        yield from _by_window(layer, networks, rule, over, bases, entries)


def _by_range(
    layer: Layer, networks: Sequence[Network], rule: Rule, over: str, bases: Sequence[int], width: int
) -> Iterator[Piece]:
    """Blocks of ``width`` positions, each addressed by position - start."""
    width = min(width, layer.size)
    readers = [_Reader(network, layer) for network in networks]
    slots = _slots(rule, over, width, len(networks))
    for start in range(0, layer.size, max(width, 1)):
        stop = min(start + width, layer.size)
        slots.clear()
        for i, reader in enumerate(readers):
            index, values = reader.take(start, stop)
            at: Tensor | slice = slice(0, stop - start)
            if index is not None and index.numel() < stop - start:
                at = index - start
            slots.add(i, at, values, _draw(bases[i], index, start, stop))
            _release(networks, i)
        yield from _pieces(layer, rule, slots, stop - start, start)


class _Reader:
    """Reads the entries of one part of one network, range by range of positions.

    It keeps nothing between ranges: it reads as many entries as the range probably has, and a few more, which
    it reads again for the next range.
    """

    def __init__(self, network: Network, layer: Layer) -> None:
        part = network.parts[layer.name]
        self._network, self._name, self._size = network, layer.name, layer.size
        self._stored, self._sparse, self._at = part.stored, part.sparse, 0

    def take(self, start: int, stop: int) -> tuple[Tensor | None, Tensor]:
        """The entries at positions in ``[start, stop)``: positions, None where all are there, and values."""
        if not self._sparse:
            return None, self._network.values(self._name, start, stop)
        left = self._stored - self._at
        mean = left * (stop - start) / (self._size - start)
        wanted = min(left, int(mean + 3 * math.sqrt(mean)) + 16)
        while True:
            index = self._network.index(self._name, self._at, self._at + wanted)
            n = int(torch.searchsorted(index, stop))
            if n < wanted or wanted == left:
                break
            wanted = min(left, 2 * wanted)
        values = self._network.values(self._name, self._at, self._at + n)
        self._at += n
        return index[:n], values


def _by_window(
    layer: Layer, networks: Sequence[Network], rule: Rule, over: str, bases: Sequence[int], entries: int
) -> Iterator[Piece]:
    """Blocks as long as all buffers reach, addressed through the sorted union of their positions."""
    share = max(1, entries // len(networks))
    cursors = [Cursor(network, layer) for network in networks]
    start = 0
    while start < layer.size:
        for i, cursor in enumerate(cursors):
            cursor.fill(share)
            _release(networks, i)
        stop = min(cursor.end for cursor in cursors)
        taken = [cursor.take(stop) for cursor in cursors]
        union = torch.unique(torch.cat([index for index, _ in taken]))
        slots = _slots(rule, over, union.numel(), len(networks))
        for i, (index, values) in enumerate(taken):
            at = torch.searchsorted(union, index)
            slots.add(i, at, values, _draw(bases[i], index, start, stop))
        for at, values in _pieces(layer, rule, slots, union.numel(), 0):
            yield union[at], values
        start = stop


class Cursor:
    """Reads the entries of one sparse part of one network in order of position."""

    def __init__(self, network: Network, layer: Layer) -> None:
        self._network, self._layer = network, layer
        self._stored = network.parts[layer.name].stored
        self._at = 0  # the next entry to read
        self._index, self._values = torch.empty(0, dtype=torch.int64), torch.empty(0)

    @property
    def end(self) -> int:
        """All entries at positions below this are in the buffer."""
        return self._layer.size if self._at == self._stored else int(self._index[-1]) + 1

    def fill(self, entries: int) -> None:
        """Have this many entries in the buffer, or all that are left."""
        stop = min(self._at + max(entries - self._index.numel(), 0), self._stored)
        if stop > self._at:
            index = self._network.index(self._layer.name, self._at, stop)
            values = self._network.values(self._layer.name, self._at, stop)
            empty = self._index.numel() == 0
            self._index = index if empty else torch.cat([self._index, index])
            self._values = values if empty else torch.cat([self._values, values])
            self._at = stop

    def take(self, stop: int) -> tuple[Tensor, Tensor]:
        """Positions and values of the entries below ``stop``, which the buffer must reach; they leave it."""
        n = int(torch.searchsorted(self._index, stop))
        taken = self._index[:n], self._values[:n]
        # copies, so that what is left does not hold on to all of the buffer
        self._index, self._values = self._index[n:].clone(), self._values[n:].clone()
        return taken


def _slots(rule: Rule, over: str, width: int, networks: int) -> _Folded | _Stacked:
    if isinstance(rule, Combine):
        return _Folded(rule, over, width, networks)
    return _Stacked(rule, width, networks)


def _draw(base: int, index: Tensor | None, start: int, stop: int) -> combine.Uniform:
    return lambda: keys.uniform(base, torch.arange(start, stop) if index is None else index)


def _release(networks: Sequence[Network], i: int) -> None:
    """Keep no more files open than a process may."""
    if len(networks) > MANY:
        networks[i].release()


def _pieces(layer: Layer, rule: Rule, slots: _Folded | _Stacked, width: int, first: int) -> Iterator[Piece]:
    for low in range(0, width, PIECE):
        at = slots.present(low, min(low + PIECE, width))
        if at.numel():
            yield first + at, checked(slots.merged(at), layer, rule)


def checked(merged: Tensor, layer: Layer, rule: Rule) -> Tensor:
    """Merged values in the layer's type, after checking that they are finite."""
    values = merged.to(layer.dtype)
    if not bool(torch.isfinite(values).all()):
        raise InputError(
            f"merging '{layer.name}' by {combine.name_of(rule)} gives NaN or values beyond {layer.dtype}: "
            "use another rule, or networks of a wider type"
        )
    return values
