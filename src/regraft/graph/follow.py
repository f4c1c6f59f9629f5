"""``Walk``: what is known while a network is followed, operation by operation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from regraft.errors import InputError
from regraft.graph import spaces
from regraft.graph.groups import Kind, Slot
from regraft.graph.spaces import INPUT, Block, Segment, Space
from regraft.weight import SparseWeight

By_hand = "state its groups by hand: regraft.graph.Graph((Group(...), ...), input_shape)"

Known = Space | tuple[Space, ...] | None
"""What a node of the graph holds: units along an axis, several such tensors, or no units at all (a number, a
shape, a parameter)."""


class Walk:
    """The spaces of a network's activations, and the tensors whose axes lie along them."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.label = type(model).__name__
        self.known: dict[fx.Node, Known] = {}
        self.blocks: list[Block] = []
        self.order = 0
        self.attentions: list[tuple[Space, Space, int, str]] = []
        self._along: dict[tuple[str, int], Space] = {}
        self._names: dict[int, str] = {}
        for name, module in model.named_modules():
            if isinstance(module, SparseWeight):
                self._names.setdefault(id(module), name)
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            self._names.setdefault(id(tensor), name)

    def name(self, tensor: Tensor | SparseWeight) -> str:
        """The tensor's name in the model; for a shared one, the first."""
        return self._names[id(tensor)]

    def attach(self, space: Space, tensor: Tensor | SparseWeight | None, axis: int, kind: Kind) -> None:
        """The axis of the tensor lies along the space; where it already lies along another, they are one."""
        if tensor is None:
            return
        name = self.name(tensor)
        if (name, axis) in self._along:
            spaces.join(self._along[name, axis], space)
            return
        spaces.attach(space, self.order, name, axis, kind, tensor.shape[axis])
        self._along[name, axis] = space

    def make(self, tensor: Tensor | SparseWeight, axis: int, name: str) -> Space:
        """New units, one for each entry of the tensor's axis; the same ones where it is used again."""
        found = self._along.get((self.name(tensor), axis))
        if found is None:
            found = self.fresh(tensor.shape[axis], name)
            self.attach(found, tensor, axis, "make")
        return found

    def fresh(self, units: int, name: str) -> Space:
        """New units that no tensor lies along yet."""
        block = Block(units, name, self.order)
        self.blocks.append(block)
        return Space(0, ((block, 1),))

    def attend(self, query: Space, key: Space, value: Space, heads: int, where: str) -> None:
        """Note attention of so many heads: queries and keys meet unit by unit, and each of their heads says
        how the values of one head are weighed."""
        met = self.mixed(spaces.join(query, key), where)
        self.attentions.append((met, value, heads, where))

    def count(self, name: str, segments: tuple[Segment, ...]) -> None:
        """Note units that no tensor makes: a module adds so many zeros."""
        offset = 0
        for block, repeat in segments:
            block.slots.append((self.order, Slot(name, 0, "zero", offset, repeat)))
            offset += block.units * repeat

    def noted(self, space: Space, operation: str) -> Space:
        """The same space, after an operation on each unit by itself."""
        for block in spaces.each(space):
            if operation not in block.operations:
                block.operations.append(operation)
        return space

    def mixed(self, space: Space, operation: str) -> Space:
        """The same space, after an operation that looks at all units together."""
        for block in spaces.each(space):
            if operation not in block.mixed_by:
                block.mixed_by.append(operation)
        return space

    def space(self, node: object, where: str) -> Space:
        """The units of an argument that must be an activation."""
        found = self.known.get(node) if isinstance(node, fx.Node) else None
        if not isinstance(found, Space):
            raise self.lost(where, "it does not work on an activation of the network")
        return found

    def check_whole(self, node: fx.Node, where: str) -> None:
        """Raise InputError if an argument's units are split into heads, of which only attention knows."""
        for argument in node.all_input_nodes:
            found = self.known.get(argument)
            if isinstance(found, Space) and found.inner is not None:
                raise self.lost(
                    where, "its units are split into heads, which only scaled_dot_product_attention reads"
                )

    def lost(self, where: str, why: str) -> InputError:
        """The error where the network cannot be followed."""
        return InputError(f"cannot follow the units of the {self.label} through '{where}': {why}; {By_hand}")


def shape_of(node: Any) -> tuple[int, ...]:
    """Shape of the tensor that a node makes."""
    shape: tuple[int, ...] = node.meta["shape"]
    return shape


def reshaped(space: Space, before: Sequence[int], after: Sequence[int]) -> Space | None:
    """The space after a change of shape without a change of order; None where its axis does not survive.

    The axis may take up the ones behind it (flattening of maps); each entry is then repeated. It may also be
    split into heads, and heads be put in a row again.
    """
    if space.inner is not None:
        return _in_a_row(space, before, after)
    ahead = math.prod(before[: space.axis])
    for axis in range(len(after)):
        if math.prod(after[:axis]) != ahead:
            continue
        for behind in range(space.axis + 1, len(before) + 1):
            times = math.prod(before[space.axis + 1 : behind])
            if after[axis] == before[space.axis] * times:
                return space.repeated(times).at(axis)
        if after[axis : axis + 2] and math.prod(after[axis : axis + 2]) == before[space.axis]:
            return space.at(axis, axis + 1)
    return None


def _in_a_row(space: Space, before: Sequence[int], after: Sequence[int]) -> Space | None:
    """Heads and the units of each in one axis again."""
    if space.inner != space.axis + 1:
        return None
    ahead, units = math.prod(before[: space.axis]), before[space.axis] * before[space.inner]
    for axis in range(len(after)):
        if math.prod(after[:axis]) == ahead and after[axis] == units:
            return space.at(axis)
    return None


def input_space(shape: Sequence[int]) -> Space:
    """The network's own input."""
    return INPUT.at(1 if len(shape) > 1 else 0)


def is_parameter(model: nn.Module, node: object) -> Tensor | None:
    """The parameter that a node reads from the model, or None."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value: Any = model
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value if isinstance(value, torch.Tensor) else None
