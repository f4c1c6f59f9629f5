"""``Gated``: a network whose units pass through gates on the way to whatever reads them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from regraft.errors import InputError, MismatchError
from regraft.gates.module import Gates
from regraft.graph import Graph, Group, Kind
from regraft.layers import SparseLinear
from regraft.weight import SparseWeight


@dataclass(frozen=True)
class Reader:
    """A tensor that reads gated units.

    Attributes:
        tensor: its name in the model.
        axis: of its dense shape.
        gates: number of the gate of each entry of the axis, int64; the number of gates itself for entries
            that no gate covers.
    """

    tensor: str
    axis: int
    gates: Tensor


def gate_sizes(graph: Graph) -> dict[str, int]:
    """Units of each group that can be gated: of those that may change places and that something reads.

    >>> from regraft.graph import Group, Slot
    >>> hidden = Group("0", 4, (Slot("0.weight", 0, "make"), Slot("2.weight", 1, "read")))
    >>> gate_sizes(Graph((hidden,), (3,)))
    {'0': 4}

    Raises:
        InputError: no such group.
    """
    sizes = {group.name: group.units for group in graph.free if group.of_kind("read")}
    if not sizes:
        raise InputError("the network has no hidden units, so that there is nothing to gate")
    return sizes


def readers(model: nn.Module, graph: Graph, sizes: Mapping[str, int]) -> list[Reader]:
    """The tensors that read units of the groups named in ``sizes``, whose gates lie in that order."""
    total, before = sum(sizes.values()), 0
    found: dict[tuple[str, int], Tensor] = {}
    for name, units in sizes.items():
        numbers = torch.arange(before, before + units)
        before += units
        for slot in graph[name].of_kind("read"):
            length = dense_shape(model, slot.tensor)[slot.axis]
            entries = found.setdefault((slot.tensor, slot.axis), torch.full((length,), total))
            entries[slot.offset : slot.offset + units * slot.repeat] = numbers.repeat_interleave(slot.repeat)
    return [Reader(tensor, axis, gates) for (tensor, axis), gates in found.items()]


def dense_shape(model: nn.Module, tensor: str) -> torch.Size:
    """The dense shape of a tensor of the model; a sparse weight goes by its module's name."""
    return cast(Tensor | SparseWeight, attribute(model, tensor)).shape


def attribute(model: nn.Module, tensor: str) -> object:
    """A tensor of the model, or the module of a sparse weight, by its name."""
    owner, _, name = tensor.rpartition(".")
    return getattr(model.get_submodule(owner), name)


class Gated(nn.Module):
    """A network with gates at its units.

    A gate stands where the units are read: behind normalisation, activation and pooling, in front of the
    layers that read them. All readers of a group see the same value, drawn once a forward pass; a group that
    is a residual stream has one gate for each of its units, and the stream itself is not multiplied. A closed
    gate therefore does exactly what cutting the unit does. Units that pass through a layer one by one
    (depthwise convolution, normalisation) are gated behind it.

    A linear layer has its input multiplied; a convolution has its weight's input channels multiplied instead,
    which is the same function and much cheaper where activations are larger than weights.

    The network's own modules and parameters are used as they are: training ``Gated`` trains them.

    Args:
        model: the network.
        graph: its groups, as ``graph.trace`` gives them.
        gates: one gate for each unit of some of the groups. Default: ``Gates(gate_sizes(graph))``.

    >>> from regraft.graph import Group, Slot
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> hidden = Group("0", 4, (Slot("0.weight", 0, "make"), Slot("0.bias", 0, "bias"),
    ...                         Slot("2.weight", 1, "read")))
    >>> gated = Gated(model, Graph((hidden,), (3,)))
    >>> x = torch.ones(5, 3)
    >>> bool(torch.equal(gated.through(torch.ones(4), x), model(x)))
    True

    Raises:
        InputError: no group that can be gated.
        MismatchError: the gates are of other groups, or of other sizes.
    """

    def __init__(self, model: nn.Module, graph: Graph, gates: Gates | None = None) -> None:
        super().__init__()
        self.model = model
        self.graph = graph
        self.gates = Gates(gate_sizes(graph)) if gates is None else gates
        for name, units in self.gates.sizes.items():
            if graph[name].units != units:
                raise MismatchError(
                    f"there are {units} gates for the group '{name}', which has {graph[name].units} units"
                )
        self._readers: list[tuple[str, str, int, slice | None]] = []
        for number, reader in enumerate(readers(model, graph, self.gates.sizes)):
            self._readers.append((f"_gates_{number}", reader.tensor, reader.axis, _in_a_row(reader.gates)))
            self.register_buffer(f"_gates_{number}", reader.gates, persistent=False)

    def forward(self, *inputs: Tensor, uniform: Tensor | None = None) -> Any:
        """What the network computes with the gates as they fall; ``uniform`` as in ``Gates``."""
        return self.through(self.gates(uniform), *inputs)

    def through(self, values: Tensor, *inputs: Tensor) -> Any:
        """What the network computes with gates of these values, [units]."""
        weights: dict[str, Tensor] = {}
        hooks = []
        try:
            for tensor, axis, factor in self._factors(values):
                layer = self.model.get_submodule(tensor.rpartition(".")[0])
                if type(layer) in (nn.Linear, SparseLinear):
                    hooks.append(layer.register_forward_pre_hook(_multiplied(factor)))
                else:
                    weights.update([self._weight(tensor, axis, factor)])
            return functional_call(self.model, weights, inputs) if weights else self.model(*inputs)
        finally:
            for hook in hooks:
                hook.remove()

    @torch.no_grad()
    def count_connections(self) -> None:
        """Let each unit count in the mean of its group by the connections that come into it and go out.

        In a dense network all units of a group have as many, and nothing changes. In a sparse one many units
        have none that come in or none that go out: these are dead, whatever their gates do, count nothing,
        and are kept last. Were they counted, they could make up the share of closed gates alone, while the
        living ones, which hold all the connections, would stay open.
        """
        counts = []
        for name in self.gates.sizes:
            comes, goes = (_connections(self.model, self.graph[name], kind) for kind in ("make", "read"))
            through = _connections(self.model, self.graph[name], "through")
            alive = (comes > 0) & (goes > 0)
            counts.append(torch.where(alive, comes + through + goes, 0.0))
        self.gates.weigh(torch.cat(counts))

    @torch.no_grad()
    def folded(self) -> nn.Module:
        """A copy of the network whose weights have taken over what the gates do in evaluation."""
        model = deepcopy(self.model)
        for tensor, axis, factor in self._factors(self.gates.distribution.certain(self.gates.log_alpha)):
            name, weight = self._weight(tensor, axis, factor)
            model.get_parameter(name).copy_(weight)
        return model

    def _factors(self, values: Tensor) -> Iterator[tuple[str, int, Tensor]]:
        """Each reader's tensor and axis, and what each entry of the axis is multiplied with."""
        with_one = torch.cat([values, values.new_ones(1)])  # the last for entries without a gate
        for buffer, tensor, axis, row in self._readers:
            factor = with_one.index_select(0, getattr(self, buffer)) if row is None else with_one[row]
            yield tensor, axis, factor

    def _weight(self, tensor: str, axis: int, factor: Tensor) -> tuple[str, Tensor]:
        """Name and value of a parameter that is multiplied along an axis."""
        weight = attribute(self.model, tensor)
        if isinstance(weight, SparseWeight):
            return f"{tensor}.values", weight.values * factor.index_select(0, axis_entries(weight, axis))
        dense = cast(Tensor, weight)
        return tensor, dense * factor.view(-1, *(1,) * (dense.ndim - 1 - axis))


def _in_a_row(numbers: Tensor) -> slice | None:
    """The slice that gives these numbers, if they follow each other: taking it is cheaper than gathering."""
    start, stop = int(numbers[0]), int(numbers[0]) + len(numbers)
    return slice(start, stop) if torch.equal(numbers, torch.arange(start, stop)) else None


def _connections(model: nn.Module, group: Group, kind: Kind) -> Tensor:
    """How many connections each unit of the group has in the tensors that do ``kind`` with it."""
    total = torch.zeros(group.units)
    for slot in group.of_kind(kind):
        weight = attribute(model, slot.tensor)
        if isinstance(weight, SparseWeight):
            entries = axis_entries(weight, slot.axis).cpu() - slot.offset
            units = entries[(entries >= 0) & (entries < group.units * slot.repeat)] // slot.repeat
            total += torch.bincount(units, minlength=group.units)
        else:
            dense = cast(Tensor, weight)
            total += slot.repeat * dense.numel() / dense.shape[slot.axis]
    return total


def _multiplied(factor: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    return lambda layer, inputs: (inputs[0] * factor, *inputs[1:])


def axis_entries(weight: SparseWeight, axis: int) -> Tensor:
    """Where each connection lies along an axis, kept until the topology changes."""
    key = f"entries along {axis}"
    if key not in weight.cache:
        step = math.prod(weight.shape[axis + 1 :])
        weight.cache[key] = weight.index.div(step, rounding_mode="floor") % weight.shape[axis]
    return cast(Tensor, weight.cache[key])
