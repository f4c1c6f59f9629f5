"""``Graph``: which units of a network belong together, as plain data.

A *group* is a set of units (neurons, feature maps) that every tensor of the network must treat alike: where
unit 3 moves, is gated or is cut, it moves, is gated or is cut in all of the group's *slots*.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from regraft.errors import InputError, unknown

Kind = Literal["make", "read", "through", "bias", "norm", "statistic", "zero"]
"""What a tensor does with the units of a slot: a weight that makes them (its output units), that reads them
(its inputs), or both block by block (grouped and depthwise convolution); a bias or another parameter with
one value a unit; scale and shift of a normalisation; its running statistics. ``"zero"`` is no tensor, but the
number of maps of zeros that a shortcut adds (``"shortcut.more"``)."""


@dataclass(frozen=True, order=True)
class Slot:
    """Where the units of a group are in one tensor.

    Unit ``u`` has the entries ``offset + u * repeat`` up to, not including, ``offset + (u + 1) * repeat`` of
    ``axis``.

    Attributes:
        tensor: its name in the model; a sparse weight has that of its module, ``"0.weight"``, as a dense one.
        axis: of the tensor's dense shape.
        kind: what the tensor does with the units.
        offset: where the units begin, other than 0 behind a concatenation.
        repeat: entries per unit; more than 1 where maps were flattened or blocks of maps move together.
    """

    tensor: str
    axis: int
    kind: Kind
    offset: int = 0
    repeat: int = 1

    @property
    def module(self) -> str:
        """Name of the module that owns the tensor.

        >>> Slot("features.0.weight", 0, "make").module
        'features.0'
        """
        return self.tensor.rpartition(".")[0]


@dataclass(frozen=True)
class Heads:
    """How the units of a group are put into heads of attention: the first ``units / count`` make the first
    head, and so on. Heads change places as wholes, and units only within their head.

    Attributes:
        name: of the attention. Groups whose heads have one name move them alike: queries and keys, which
            are one group since they meet unit by unit, and values, which are another.
        count: how many heads there are.
    """

    name: str
    count: int


@dataclass(frozen=True)
class Group:
    """Units that must be treated alike.

    Attributes:
        name: the first layer that makes the units.
        units: how many there are.
        slots: where they are, in the order in which the network computes. What a network reads from its input
            belongs to no group.
        fixed: why they cannot move (``"they are the network's output"``, ...), or None.
        mixed_by: operations that look at all units together (layer normalisation, softmax): units may change
            places, but cutting one changes what the others compute.
        operations: what is done to each unit by itself between the layers, by name, in the order of the first
            use: ``"relu"``, ``"maxpool2d"``, ``"add"``, ``"dropout"``, ...
        heads: the heads of attention that the units make, or None.
    """

    name: str
    units: int
    slots: tuple[Slot, ...]
    fixed: str | None = None
    mixed_by: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    heads: Heads | None = None

    def of_kind(self, *kinds: Kind) -> tuple[Slot, ...]:
        """The slots of these kinds."""
        return tuple(s for s in self.slots if s.kind in kinds)


@dataclass(frozen=True)
class Graph:
    """The groups of a network; what ``trace`` gives.

    Attributes:
        groups: in the order in which the network computes them.
        input_shape: shape of one sample, without the batch.

    >>> hidden = Group("0", 4, (Slot("0.weight", 0, "make"), Slot("2.weight", 1, "read")))
    >>> graph = Graph((hidden,), (3,))
    >>> graph["0"].units, [g.name for g in graph.free]
    (4, ['0'])
    """

    groups: tuple[Group, ...]
    input_shape: tuple[int, ...]
    _by_name: Mapping[str, Group] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_name = {group.name: group for group in self.groups}
        if len(by_name) != len(self.groups):
            raise InputError("two groups have the same name: give each one of its own")
        object.__setattr__(self, "_by_name", by_name)

    def __getitem__(self, name: str) -> Group:
        if name not in self._by_name:
            raise unknown("group", name, self._by_name)
        return self._by_name[name]

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def free(self) -> tuple[Group, ...]:
        """The groups whose units may change places."""
        return tuple(group for group in self.groups if group.fixed is None)

    @property
    def bundles(self) -> tuple[tuple[Group, ...], ...]:
        """The free groups, those together whose heads move alike."""
        found: dict[object, list[Group]] = {}
        for group in self.free:
            found.setdefault((group.heads.name,) if group.heads else group.name, []).append(group)
        return tuple(tuple(groups) for groups in found.values())

    def along(self, tensor: str, axis: int) -> list[tuple[Group, Slot]]:
        """The groups along one axis of a tensor, in order of position. Positions that no slot covers
        belong to no group and stay as they are."""
        found = [(g, s) for g in self.groups for s in g.slots if (s.tensor, s.axis) == (tensor, axis)]
        return sorted(found, key=lambda pair: pair[1].offset)
