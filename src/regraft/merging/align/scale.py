"""``normalise_scale``: one network of all those that differ only in the scale of their units."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from regraft import graph as graphs
from regraft.errors import InputError
from regraft.graph import Graph, Group, Slot
from regraft.merging.align.homogeneous import Scalable, scalable
from regraft.merging.networks import open_network
from regraft.weight import SparseWeight

M = TypeVar("M", bound=nn.Module)

PASSES = 1000
SETTLED = 1e-10
"""The last pass over all units is the first that changes no factor by a larger share."""


def normalise_scale(model: M, graph: Graph | None = None) -> M:
    """A copy of the model that computes the same, with its units at their canonical scale.

    A ReLU unit whose incoming weights and bias are multiplied by s > 0 and whose outgoing weights are divided
    by s computes what it did, and so does a convolution before a batch normalisation whose statistics follow.
    Of all networks that differ in this way only, this is the one with the least sum of squares: of each unit
    the incoming and the outgoing weights have the same norm, s = (sum of squares out / in)^(1/4), repeated
    over all units until none changes (Stock et al. 2019, "Equi-normalization of Neural Networks",
    arXiv:1902.10416). Weight decay drives networks there, so trained ones change little. Where only batch
    normalisations read a unit, nothing pulls from the other side: its incoming weights get norm sqrt(2), as
    He et al. 2015 draw them. Units with no weights on one side follow the others of their layer.

    Activations that do not commute with a factor (tanh, sigmoid, GELU, ...) are left as they are, and so are
    the network's input and output; ``scalable`` names them. Batch normalisation counts as in evaluation mode.

    Args:
        graph: the model's groups; default: ``regraft.graph.trace(model)``.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> scaled = copy.deepcopy(model)
    >>> with torch.no_grad():
    ...     for parameter, factor in zip(scaled.parameters(), (3, 3, 1 / 3, 1)):
    ...         _ = parameter.mul_(factor)
    >>> a, b = normalise_scale(model), normalise_scale(scaled)
    >>> torch.allclose(a[0].weight, b[0].weight), torch.allclose(a[0].weight, scaled[0].weight)
    (True, False)

    Raises:
        InputError: a model that cannot be traced, NaN or infinite weights.
        MismatchError: the graph is of another model.
    """
    return normalised([model], graph if graph is not None else graphs.trace(model))[0]


def normalised(models: Sequence[M], graph: Graph) -> list[M]:
    """``normalise_scale`` of several models of one architecture."""
    graphs.check(models[0], graph)
    shares = _shares(models[0], graph)
    return [_normalised(model, shares, number) for number, model in enumerate(models, 1)]


def _normalised(model: M, shares: Sequence[_Share], number: int) -> M:
    network = open_network(model, number)
    for name in dict.fromkeys(slot.tensor for share in shares for slot in share.up + share.down):
        network.values(name, 0, network.parts[name].stored)  # refuses NaN and infinite values
    balance = _Balance(model, shares)
    for _ in range(PASSES):
        if balance.step() < SETTLED:
            break
    made = copy.deepcopy(model)
    made.load_state_dict(balance.model.state_dict())
    return made


@dataclass(frozen=True, eq=False)
class _Share:
    """The units of one group within activations that can be scaled.

    Attributes:
        up: slots that are multiplied.
        down: slots that are divided.
        norms: slots of the running means of batch normalisations, whose statistics follow.
    """

    units: int
    up: tuple[Slot, ...]
    down: tuple[Slot, ...]
    norms: tuple[Slot, ...]


def _shares(model: nn.Module, graph: Graph) -> list[_Share]:
    modules = dict(model.named_modules())
    try:
        sets = [s for s in scalable(model, graph.input_shape) if s.blocked is None]
    except InputError as error:
        raise InputError(f"{error}. To merge it as it is, pass normalise=False") from error
    found = [_share(group, activations, modules) for activations in sets for group in graph]
    return [share for share in found if share.up]


def _share(group: Group, activations: Scalable, modules: Mapping[str, nn.Module]) -> _Share:
    norms = {n for n in activations.readers if isinstance(modules[n], nn.modules.batchnorm._BatchNorm)}
    up = [s for s in group.of_kind("make", "through", "bias", "norm") if s.module in activations.makers]
    down = [s for s in group.of_kind("read", "through") if s.module in activations.readers - norms]
    means = [s for s in group.of_kind("statistic") if s.module in norms and s.tensor.endswith("running_mean")]
    return _Share(group.units, tuple(up), tuple(down), tuple(means))


class _Balance:
    """A model in float64 whose units are scaled in place until their weights are balanced."""

    def __init__(self, model: M, shares: Sequence[_Share]) -> None:
        self.model = copy.deepcopy(model).cpu().double()
        self._shares = shares
        self._parts = {slot: _Part(self.model, slot, s.units) for s in shares for slot in s.up + s.down}

    def step(self) -> float:
        """Balance each unit once; the largest change of a factor, as a share."""
        return max((self._balance(share) for share in self._shares), default=0.0)

    def _balance(self, share: _Share) -> float:
        nothing = torch.zeros(share.units, dtype=torch.float64)
        into = sum((self._parts[slot].squares() for slot in share.up), nothing)
        out = sum((self._parts[slot].squares() for slot in share.down), nothing)
        if not share.down:
            makers = sum(slot.kind in ("make", "through") for slot in share.up)
            out = (2.0 * max(makers, 1)) ** 2 / into  # a norm of sqrt(2) from each
        live = (into > 0) & (out > 0)
        factor = torch.ones_like(into)
        factor[live] = (out[live] / into[live]).pow(0.25)
        if bool(live.any()):
            factor[~live] = factor[live].log().mean().exp()
        for slot in share.up:
            self._parts[slot].multiply(factor)
        for slot in share.down:
            self._parts[slot].multiply(1 / factor)
        for slot in share.norms:
            _follow(self.model.get_submodule(slot.module), slot, factor)
        return float((factor - 1).abs().max())


class _Part:
    """A slot's units in a model's tensor."""

    def __init__(self, model: nn.Module, slot: Slot, units: int) -> None:
        self._units = units
        owner: Any = model.get_submodule(slot.module)
        tensor = getattr(owner, slot.tensor.rpartition(".")[2])
        first, entries = slot.offset, units * slot.repeat
        self._dense: Tensor | None = None
        if isinstance(tensor, SparseWeight):
            at = tensor.rows() if slot.axis == 0 else tensor.input_units()
            self._entries = ((at >= first) & (at < first + entries)).nonzero().squeeze(1)
            self._unit = (at[self._entries] - first) // slot.repeat
            self._values = tensor.values.data
        else:
            self._dense = tensor.data.movedim(slot.axis, 0)[first : first + entries]

    def squares(self) -> Tensor:
        """Sum of squares of each unit, [units]."""
        if self._dense is not None:
            return self._dense.square().reshape(self._units, -1).sum(1)
        total = torch.zeros(self._units, dtype=torch.float64)
        return total.index_add_(0, self._unit, self._values[self._entries].square())

    def multiply(self, factor: Tensor) -> None:
        """Each unit by its factor, in place."""
        if self._dense is not None:
            repeated = factor.repeat_interleave(len(self._dense) // self._units)
            self._dense.mul_(repeated.view(-1, *[1] * (self._dense.ndim - 1)))
        else:
            self._values[self._entries] *= factor[self._unit]


def _follow(norm: Any, slot: Slot, factor: Tensor) -> None:
    """Let a batch normalisation give what it gave when its inputs are multiplied by ``factor``; its scale
    makes up for the epsilon, which is not multiplied."""
    factor = factor.repeat_interleave(slot.repeat)
    units = slice(slot.offset, slot.offset + len(factor))
    mean, var, scale = norm.running_mean[units], norm.running_var[units], norm.weight.data[units]
    scale *= (factor.square() * var + norm.eps).sqrt() / (factor * (var + norm.eps).sqrt())
    mean *= factor
    var *= factor.square()
