"""``check``: whether a graph, traced or stated by hand, describes a model."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from regraft.errors import InputError, MismatchError
from regraft.graph.groups import Graph, Group, Slot
from regraft.graph.rebuild import Sparse, tensors_of


def check(model: nn.Module, graph: Graph) -> Graph:
    """The graph, if each of its slots lies within a tensor of the model and no two of them overlap.

    That the groups are the right ones cannot be seen from sizes: a model whose units are permuted along them
    must compute the same function (see ``take``).

    >>> from regraft.graph import Group, Slot
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> slots = (Slot("0.weight", 0, "make"), Slot("0.bias", 0, "bias"), Slot("2.weight", 1, "read"))
    >>> check(model, Graph((Group("hidden", 4, slots),), (3,)))["hidden"].units
    4

    Raises:
        InputError: a group without units or slots, two slots on the same entries.
        MismatchError: a slot that the model has no place for.
    """
    tensors = tensors_of(model)
    taken: dict[tuple[str, int], list[tuple[int, int, str]]] = {}
    for group in graph:
        if group.units < 1 or not group.slots:
            raise InputError(f"the group '{group.name}' has {group.units} units and {len(group.slots)} slots")
        for slot in group.slots:
            if slot.kind != "zero":
                _check_slot(group, slot, tensors)
            stop = slot.offset + group.units * slot.repeat
            taken.setdefault((slot.tensor, slot.axis), []).append((slot.offset, stop, group.name))
    for (tensor, axis), spans in taken.items():
        spans.sort()
        for (_, stop, first), (start, _, second) in pairwise(spans):
            if start < stop:
                raise InputError(
                    f"the groups '{first}' and '{second}' overlap on axis {axis} of '{tensor}': state each "
                    "unit once"
                )
    return graph


def _check_slot(group: Group, slot: Slot, tensors: dict[str, Tensor | Sparse]) -> None:
    if slot.tensor not in tensors:
        raise MismatchError(
            f"the group '{group.name}' has a slot in '{slot.tensor}', which the model does not have: trace "
            "this model, or state its own groups"
        )
    shape = tuple(tensors[slot.tensor].shape)
    stop = slot.offset + group.units * slot.repeat
    if not 0 <= slot.axis < len(shape) or slot.offset < 0 or slot.repeat < 1 or stop > shape[slot.axis]:
        raise MismatchError(
            f"the group '{group.name}' has {group.units} units of {slot.repeat} from entry {slot.offset} on "
            f"axis {slot.axis} of '{slot.tensor}', which has shape {shape}: trace this model, or state its "
            "own groups"
        )
