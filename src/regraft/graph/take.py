"""``take``: some units of each group, in an order of one's own: permutation and compression in one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from regraft.errors import InputError, MismatchError
from regraft.graph.check import check
from regraft.graph.groups import Graph, Group
from regraft.graph.rebuild import Sparse, rebuilt, strides, tensors_of, with_spec

M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def take(model: M, graph: Graph, units: Mapping[str, Tensor], *, spec: Mapping[str, Any] | None = None) -> M:
    """A copy of the model with only these units of each group, in this order.

    All units in another order compute the same function; fewer units are what is left when the others are
    cut. Weights stay as sparse as they are: connections of cut units go. Units of heads of attention stay
    with those of their head, in all groups of that attention alike.

    Args:
        graph: the model's groups; see ``trace``.
        units: int64 unit numbers by group name, each at most once. Groups that are not named stay whole.
        spec: what a model of the new sizes is built from, so that it can be saved; default: the model's own
            where no size changes, else none.

    >>> from regraft.graph import trace
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> graph, x = trace(model), torch.randn(5, 3)
    >>> turned = take(model, graph, {"0": torch.tensor([3, 2, 1, 0])})
    >>> torch.allclose(turned(x), model(x), atol=1e-6)
    True
    >>> take(model, graph, {"0": torch.tensor([1, 3])})
    Sequential(
      (0): Linear(in_features=3, out_features=2, bias=True)
      (1): ReLU()
      (2): Linear(in_features=2, out_features=2, bias=True)
    )

    Raises:
        InputError: an unknown or fixed group, unit numbers out of range, twice or none at all; heads of
            attention that are taken apart, or other heads of the values than of queries and keys.
        MismatchError: the graph is of another model.
    """
    check(model, graph)
    wanted = {name: _units(graph[name], numbers) for name, numbers in units.items()}
    _check_heads(graph, wanted)
    own = tensors_of(model)
    tensors: dict[str, Tensor | Sparse] = {}
    zeros: dict[str, int] = {}
    slots = [slot for name in wanted for slot in graph[name].slots]
    for name in dict.fromkeys(slot.tensor for slot in slots if slot.kind != "zero"):
        axes = {slot.axis for slot in slots if slot.tensor == name}
        lists = {axis: _entries(graph, wanted, name, axis, own[name].shape[axis]) for axis in axes}
        tensors[name] = _taken(own[name], lists)
    for name in dict.fromkeys(slot.tensor for slot in slots if slot.kind == "zero"):
        zeros[name] = _zeros(graph, wanted, name)
    made = rebuilt(model, tensors, zeros)
    resized = any(numbers.numel() != graph[name].units for name, numbers in wanted.items())
    return with_spec(made, spec if spec is not None or resized else getattr(model, "spec", None))


def _units(group: Group, numbers: Tensor) -> Tensor:
    if group.fixed is not None:
        raise InputError(f"the units of '{group.name}' cannot move: {group.fixed}")
    if (
        numbers.ndim != 1
        or numbers.numel() == 0
        or numbers.is_floating_point()
        or numbers.dtype == torch.bool
    ):
        raise InputError(
            f"the units of '{group.name}' are of shape {tuple(numbers.shape)} and type {numbers.dtype}, but "
            "must be a list of at least one unit number"
        )
    numbers = numbers.long().cpu()
    if int(numbers.min()) < 0 or int(numbers.max()) >= group.units:
        raise InputError(
            f"the units of '{group.name}' go from {int(numbers.min())} to {int(numbers.max())}, but it has "
            f"the units 0 to {group.units - 1}"
        )
    if torch.unique(numbers).numel() != numbers.numel():
        raise InputError(f"the units of '{group.name}' name one unit twice: name each at most once")
    return numbers


def _check_heads(graph: Graph, wanted: Mapping[str, Tensor]) -> None:
    """Raise InputError unless heads stay whole and those of one attention stay together."""
    for bundle in graph.bundles:
        if bundle[0].heads is None or not any(group.name in wanted for group in bundle):
            continue
        orders = [_heads(group, wanted.get(group.name)) for group in bundle]
        for group, order in zip(bundle, orders, strict=True):
            if not torch.equal(order, orders[0]):
                raise InputError(
                    f"the heads of '{bundle[0].name}' are {orders[0].tolist()}, but those of '{group.name}' "
                    f"{order.tolist()}: heads of one attention stay together"
                )


def _heads(group: Group, numbers: Tensor | None) -> Tensor:
    """Which head comes first, second, ..."""
    assert group.heads is not None
    if numbers is None:
        return torch.arange(group.heads.count)
    width = group.units // group.heads.count
    whole = numbers.numel() % width == 0
    heads = numbers.reshape(-1, width) // width if whole else numbers[:, None]
    if not whole or bool((heads != heads[:, :1]).any()):
        raise InputError(
            f"the units of '{group.name}' are those of {group.heads.count} heads, {width} in a row each, "
            "which cannot be taken apart: name whole heads, one after the other"
        )
    return heads[:, 0]


def _entries(graph: Graph, wanted: Mapping[str, Tensor], tensor: str, axis: int, size: int) -> Tensor:
    """The old entry for each new one along an axis."""
    pieces, done = [], 0
    for group, slot in graph.along(tensor, axis):
        pieces.append(torch.arange(done, slot.offset))  # entries of no group
        units = wanted.get(group.name, torch.arange(group.units))
        pieces.append((slot.offset + units[:, None] * slot.repeat + torch.arange(slot.repeat)).reshape(-1))
        done = slot.offset + group.units * slot.repeat
    pieces.append(torch.arange(done, size))
    return torch.cat(pieces)


def _taken(tensor: Tensor | Sparse, lists: Mapping[int, Tensor]) -> Tensor | Sparse:
    if isinstance(tensor, Tensor):
        for axis, entries in lists.items():
            tensor = tensor.index_select(axis, entries.to(tensor.device))
        return tensor
    index, kept = torch.zeros_like(tensor.index), torch.ones_like(tensor.index, dtype=torch.bool)
    shape = tuple(lists[a].numel() if a in lists else n for a, n in enumerate(tensor.shape))
    for axis, (old, new) in enumerate(zip(strides(tensor.shape), strides(shape), strict=True)):
        at = torch.div(tensor.index, old, rounding_mode="floor") % tensor.shape[axis]
        if axis in lists:
            place = torch.full((tensor.shape[axis],), -1, dtype=torch.int64)
            place[lists[axis]] = torch.arange(lists[axis].numel())
            at = place.to(at.device)[at]
            kept &= at >= 0
        index += at * new
    index, order = torch.sort(index[kept])
    return Sparse(shape, index, tensor.values[kept][order])


def _zeros(graph: Graph, wanted: Mapping[str, Tensor], name: str) -> int:
    """How many maps of zeros a shortcut adds when its groups have these units."""
    ends = [
        wanted.get(group.name, torch.arange(group.units)).numel() * slot.repeat
        for group, slot in graph.along(name, 0)
    ]
    if len(set(ends)) > 1:
        raise MismatchError(
            f"the shortcut '{name.rpartition('.')[0]}' adds as many maps before as behind, but {ends} would "
            "be left: take as many units of each of its groups"
        )
    return sum(ends)
