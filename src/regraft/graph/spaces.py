"""What is known about the units along one axis of an activation, while a network is being followed.

A *space* is a row of segments, each a block of units of which every unit has ``repeat`` entries. Additions
make two spaces one, concatenations put them in a row; blocks are split, joined and made coarser as that asks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from regraft.graph.groups import Kind, Slot


class NoGroup(Exception):
    """Units meet in a way that no group can describe; ``trace`` says where."""


@dataclass(eq=False)
class Block:
    """Units that belong together as far as is known.

    Attributes:
        first: number of the operation that made it.
        became: the blocks it has been replaced by, each with the number of this block's units that one of
            its units covers; None while it stands for itself.
    """

    units: int
    name: str
    first: int
    slots: list[tuple[int, Slot]] = field(default_factory=list)
    fixed: str | None = None
    mixed_by: list[str] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)
    became: list[tuple[Block, int]] | None = None


Segment = tuple[Block, int]


@dataclass(frozen=True)
class Space:
    """The units along ``axis`` of an activation. ``segments`` None: the network's own input, whose entries
    cannot move. ``inner`` not None: the units were split into heads, which are along ``axis``, and those of
    a head are along ``inner``."""

    axis: int
    segments: tuple[Segment, ...] | None
    inner: int | None = None

    def at(self, axis: int, inner: int | None = None) -> Space:
        """The same units along another axis."""
        return Space(axis, self.segments, inner)

    def repeated(self, times: int) -> Space:
        """Each entry ``times`` times in a row."""
        if self.segments is None:
            return self
        return Space(self.axis, tuple((b, r * times) for b, r in resolve(self.segments)))


INPUT = Space(-1, None)


def resolve(segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
    """The segments in terms of the blocks that stand now."""
    found: list[Segment] = []
    for block, repeat in segments:
        if block.became is None:
            found.append((block, repeat))
        else:
            found += resolve(tuple((b, repeat * f) for b, f in block.became))
    return tuple(found)


def width(segments: tuple[Segment, ...]) -> int:
    """Entries along the axis."""
    return sum(block.units * repeat for block, repeat in segments)


def attach(space: Space, order: int, tensor: str, axis: int, kind: Kind, size: int) -> None:
    """Note that the axis of ``size`` entries of a tensor lies along the space.

    Raises:
        NoGroup: the sizes differ.
    """
    if space.segments is None:
        return
    segments = resolve(space.segments)
    if width(segments) != size:
        raise NoGroup(f"axis {axis} of '{tensor}' has {size} entries for {width(segments)} units")
    offset = 0
    for block, repeat in segments:
        block.slots.append((order, Slot(tensor, axis, kind, offset, repeat)))
        offset += block.units * repeat


def each(space: Space) -> list[Block]:
    """The blocks of a space, each once."""
    return list(dict.fromkeys(b for b, _ in resolve(space.segments or ())))


def freeze(space: Space, why: str) -> None:
    """The units of the space can no longer move."""
    for block in each(space):
        block.fixed = block.fixed or why


def join(a: Space, b: Space) -> Space:
    """Make the units of two spaces the same units, entry by entry.

    Raises:
        NoGroup: the sizes differ, or the units overlap in a way that no group can have.
    """
    if a.segments is None or b.segments is None:
        freeze(a, "they are added to the network's input")
        freeze(b, "they are added to the network's input")
        return Space(a.axis, None)
    if width(resolve(a.segments)) != width(resolve(b.segments)):
        raise NoGroup(f"{width(resolve(a.segments))} units meet {width(resolve(b.segments))}")
    done = 0
    while done < len(resolve(a.segments)):
        (x, rx), (y, ry) = resolve(a.segments)[done], resolve(b.segments)[done]
        if x is y and rx == ry:
            done += 1
        elif x.units * rx != y.units * ry:
            wide, shorter = (
                ((x, rx), y.units * ry) if x.units * rx > y.units * ry else ((y, ry), x.units * rx)
            )
            _cut(wide, shorter)
        elif rx != ry:
            both = math.lcm(rx, ry)
            _coarsen(x, both // rx)
            if y.became is None:
                _coarsen(y, both // ry)
        else:
            _merge(x, y)
    return Space(a.axis, resolve(a.segments))


def part(space: Space, start: int, stop: int) -> Space:
    """The entries from ``start`` up to ``stop``."""
    if space.segments is None:
        return space
    for edge in (start, stop):
        before = 0
        for block, repeat in resolve(space.segments):
            if before < edge < before + block.units * repeat:
                _cut((block, repeat), edge - before)
            before += block.units * repeat
    found, before = [], 0
    for block, repeat in resolve(space.segments):
        if start <= before < stop:
            found.append((block, repeat))
        before += block.units * repeat
    return Space(space.axis, tuple(found))


def _cut(segment: Segment, entries: int) -> None:
    """Split a block behind so many entries of the segment."""
    block, repeat = segment
    units, rest = divmod(entries, repeat)
    if rest:  # the edge lies within a unit: only larger units have an edge there
        raise NoGroup(f"it takes {repeat} entries of '{block.name}' apart that belong together")
    halves = []
    for start, count in ((0, units), (units, block.units - units)):
        slots = [
            (n, Slot(s.tensor, s.axis, s.kind, s.offset + start * s.repeat, s.repeat)) for n, s in block.slots
        ]
        halves.append(
            Block(
                count, block.name, block.first, slots, block.fixed,
                list(block.mixed_by), list(block.operations),
            )
        )  # fmt: skip
    block.became = [(half, 1) for half in halves]


def _coarsen(block: Block, times: int) -> None:
    """Let each ``times`` units in a row be one."""
    if times == 1:
        return
    if block.units % times:
        raise NoGroup(f"it takes the {block.units} units of '{block.name}' in blocks of {times}")
    slots = [(n, Slot(s.tensor, s.axis, s.kind, s.offset, s.repeat * times)) for n, s in block.slots]
    whole = Block(
        block.units // times, block.name, block.first, slots, block.fixed, block.mixed_by, block.operations
    )
    block.became = [(whole, times)]


def _merge(x: Block, y: Block) -> None:
    """Let two blocks of one size be one."""
    first, second = (x, y) if x.first <= y.first else (y, x)
    if first is second:
        return
    first.slots += second.slots
    first.fixed = first.fixed or second.fixed
    first.mixed_by += [m for m in second.mixed_by if m not in first.mixed_by]
    first.operations += [o for o in second.operations if o not in first.operations]
    second.became = [(first, 1)]
