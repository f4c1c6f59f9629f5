"""``concatenate``: several networks side by side in one of N times the width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from regraft.errors import InputError, MismatchError
from regraft.graph.check import check
from regraft.graph.groups import Graph, Group
from regraft.graph.rebuild import Sparse, rebuilt, strides, tensors_of, with_spec
from regraft.signals.substitute import evaluation


@torch.no_grad()
def concatenate(models: Sequence[nn.Module], graph: Graph) -> tuple[nn.Module, Graph]:
    """The networks side by side in one, which computes the mean of their outputs (thesis 2, section 3.2.1).

    A group of C units has N C units in the large network: unit u of network i is unit i C + u. Weights
    between different networks are zero, and train with the others; in a sparse weight they do not exist.
    The last layers' values are divided by N.

    Args:
        models: two or more networks of one architecture. They are not changed.
        graph: their groups; see ``trace``.

    Returns:
        the large network, in the first one's mode and on its device, and its groups.

    >>> from regraft.graph import trace
    >>> a, b = (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)) for _ in range(2))
    >>> large, groups = concatenate([a, b], trace(a))
    >>> large[0].weight.shape, groups["0"].units
    (torch.Size([8, 3]), 8)
    >>> x = torch.randn(5, 3)
    >>> torch.allclose(large(x), (a(x) + b(x)) / 2, atol=1e-6)
    True

    Raises:
        InputError: fewer than two networks; networks whose mean such a network cannot compute: those that
            normalise over units or their outputs, share a value of their own for all units, or count on their
            sizes in their own code.
        MismatchError: the networks differ in architecture, or the graph is of another one.
    """
    if len(models) < 2:
        raise InputError(f"concatenation needs at least two networks, but got {len(models)}")
    check(models[0], graph)
    own = [tensors_of(model) for model in models]
    _check_alike(own)
    _check_groups(graph)
    n = len(models)
    large = Graph(tuple(_widened(graph, group, n) for group in graph), graph.input_shape)
    tensors: dict[str, Tensor | Sparse] = {}
    for name in own[0]:
        axes = [_axis(graph, name, axis, size, n) for axis, size in enumerate(own[0][name].shape)]
        tensors[name] = _together(name, [tensors[name] for tensors in own], axes, _averaged(graph, name))
    zeros = {
        s.tensor: n * sum(g.units * t.repeat for g, t in graph.along(s.tensor, 0))
        for group in graph
        for s in group.of_kind("zero")
    }
    made = with_spec(rebuilt(models[0], tensors, zeros), None)
    _check_runs(made, graph)
    return made, large


def _check_runs(model: nn.Module, graph: Graph) -> None:
    """Raise InputError if the model's own code counts on the old sizes."""
    like = next(model.parameters())
    try:
        with evaluation(model):
            model(like.new_zeros((1, *graph.input_shape)))
    except RuntimeError as error:
        raise InputError(
            f"the {type(model).__name__} does not run with more units ({str(error).splitlines()[0]}): its "
            "forward may not count on the number of units, as a shortcut that pads a fixed number of maps "
            "does (take regraft.models.resnet.Subsample for it)"
        ) from error


@dataclass(frozen=True)
class _Axis:
    """One axis of a tensor of the large network.

    Attributes:
        size: entries along it.
        places: for each network, where its entries are, int64 [entries of one network].
        own: whether each network has entries of its own.
    """

    size: int
    places: list[Tensor]
    own: bool


def _axis(graph: Graph, tensor: str, axis: int, size: int, n: int) -> _Axis:
    places = [torch.empty(size, dtype=torch.int64) for _ in range(n)]
    done = wide = 0
    free = False
    for group, slot in graph.along(tensor, axis):
        entries = group.units * slot.repeat
        for i, place in enumerate(places):
            place[done : slot.offset] = torch.arange(slot.offset - done) + wide  # entries of no group
            start = wide + slot.offset - done + (0 if group.fixed else i * entries)
            place[slot.offset : slot.offset + entries] = torch.arange(entries) + start
        wide += slot.offset - done + entries * (1 if group.fixed else n)
        done, free = slot.offset + entries, free or group.fixed is None
    for place in places:
        place[done:] = torch.arange(size - done) + wide
    return _Axis(wide + size - done, places, free)


def _widened(graph: Graph, group: Group, n: int) -> Group:
    """The group in the large network."""
    slots = []
    for slot in group.slots:
        before = sum(
            g.units * s.repeat for g, s in graph.along(slot.tensor, slot.axis)
            if s.offset < slot.offset and g.fixed is None
        )  # fmt: skip
        slots.append(replace(slot, offset=slot.offset + (n - 1) * before))
    return replace(group, units=group.units * (1 if group.fixed else n), slots=tuple(slots))


def _together(
    name: str, parts: Sequence[Tensor | Sparse], axes: Sequence[_Axis], mean: bool
) -> Tensor | Sparse:
    """The networks' tensors in one: each at its own entries, the sum where entries are shared."""
    first = parts[0]
    if isinstance(first, Tensor):
        if not first.is_floating_point() or not first.ndim:
            return _equal(name, [part for part in parts if isinstance(part, Tensor)])
        if not mean and not any(axis.own for axis in axes):
            return _equal(name, [part for part in parts if isinstance(part, Tensor)])
        return _dense([p for p in parts if isinstance(p, Tensor)], axes, mean)
    return _sparse([p for p in parts if isinstance(p, Sparse)], axes, mean)


def _dense(parts: Sequence[Tensor], axes: Sequence[_Axis], mean: bool) -> Tensor:
    made = parts[0].new_zeros([axis.size for axis in axes])
    for i, part in enumerate(parts):
        where = torch.meshgrid(*(axis.places[i].to(part.device) for axis in axes), indexing="ij")
        made.index_put_(where, part / len(parts) if mean else part, accumulate=True)
    return made


def _sparse(parts: Sequence[Sparse], axes: Sequence[_Axis], mean: bool) -> Sparse:
    shape = tuple(axis.size for axis in axes)
    found, values = [], []
    for i, part in enumerate(parts):
        index = torch.zeros_like(part.index)
        for axis, old, new in zip(axes, strides(part.shape), strides(shape), strict=True):
            at = torch.div(part.index, old, rounding_mode="floor") % axis.places[i].numel()
            index += axis.places[i].to(index.device)[at] * new
        found.append(index)
        values.append(part.values / len(parts) if mean else part.values)
    union, back = torch.unique(torch.cat(found), return_inverse=True)
    total = torch.cat(values)
    return Sparse(shape, union, total.new_zeros(union.numel()).index_add_(0, back, total))


def _equal(name: str, parts: Sequence[Tensor]) -> Tensor:
    """A tensor that all units of a network share; counters come from the first network."""
    if parts[0].is_floating_point() and any(not torch.equal(part, parts[0]) for part in parts[1:]):
        raise InputError(
            f"'{name}' has other values in each network and belongs to all units alike, so the networks "
            "cannot stand side by side: give each unit a value of its own"
        )
    return parts[0]


def _averaged(graph: Graph, tensor: str) -> bool:
    """Whether the tensor makes the network's outputs."""
    kinds = ("make", "bias", "through")
    return any(g.fixed is not None and s.kind in kinds for g, s in graph.along(tensor, 0))


def _check_groups(graph: Graph) -> None:
    for group in graph:
        if group.fixed is not None and group.of_kind("read", "norm", "through"):
            raise InputError(
                f"the units of '{group.name}' cannot be doubled, because {group.fixed}, and they are read or "
                "normalised as well: end the network with a layer of its own"
            )
        if group.fixed is None and group.mixed_by:
            raise InputError(
                f"'{group.mixed_by[0]}' normalises over all units of '{group.name}', so that networks side "
                "by side would disturb each other: use batch or group normalisation"
            )


def _check_alike(own: Sequence[dict[str, Tensor | Sparse]]) -> None:
    for i, other in enumerate(own[1:], start=2):
        for name in dict.fromkeys((*own[0], *other)):
            here, there = own[0].get(name), other.get(name)
            if here is None or there is None or type(here) is not type(there) or here.shape != there.shape:
                raise MismatchError(
                    f"network 1 has {_said(here)} '{name}', but network {i} has {_said(there)}: networks of "
                    "one architecture are needed, all sparse or all dense in each layer"
                )


def _said(tensor: Tensor | Sparse | None) -> str:
    if tensor is None:
        return "no"
    return f"a {'sparse' if isinstance(tensor, Sparse) else 'dense'} {tuple(tensor.shape)}"
