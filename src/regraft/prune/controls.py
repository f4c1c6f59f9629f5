"""Controls: networks that share with a ticket all but what the ticket is said to owe its accuracy to.

Every comparison of tickets needs them. A control is (model, topology, generator) -> sparse model, of the same
density; the model given is not modified. The fourth control, a score turned round, is
``regraft.scores.Inverted``.
"""

from __future__ import annotations

import copy
import math
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from regraft import positions
from regraft.errors import unknown
from regraft.prune.apply import apply
from regraft.prune.inits import initialise
from regraft.topology import Connections, Topology

Within = Literal["network", "layer", "output", "input"]
_WITHIN = ("network", "layer", "output", "input")


def shuffled(topology: Topology, *, within: Within = "layer", generator: torch.Generator) -> Topology:
    """As many connections at random positions, each such topology equally likely.

    Args:
        within: what keeps its number of connections: the ``"network"``, each ``"layer"``, or in each layer
            each ``"output"`` unit (its fan-in) or each ``"input"`` unit (its fan-out; of a convolution, each
            channel).

    >>> topology = Topology({"w": ((2, 5), torch.tensor([0, 1, 2, 5]))})
    >>> other = shuffled(topology, within="output", generator=torch.Generator().manual_seed(0))
    >>> torch.bincount(other["w"].index // 5).tolist()
    [3, 1]

    Raises:
        InputError: an unknown ``within``.
    """
    if within not in _WITHIN:
        raise unknown("level of shuffling", within, _WITHIN)
    if within == "network":
        return _over_network(topology, generator)
    if within == "layer":
        return Topology(
            {n: (c.shape, positions.sample(c.size, c.nnz, generator)) for n, c in topology.items()}
        )
    return Topology({n: (c.shape, _by_unit(c, within == "output", generator)) for n, c in topology.items()})


def _over_network(topology: Topology, generator: torch.Generator) -> Topology:
    flat = positions.sample(topology.size, topology.nnz, generator).cpu()
    parts, start = {}, 0
    for name, c in topology.items():
        inside = flat[(flat >= start) & (flat < start + c.size)] - start
        parts[name] = (c.shape, inside)
        start += c.size
    return Topology(parts)


def _by_unit(c: Connections, by_output: bool, generator: torch.Generator) -> Tensor:
    """Each unit's connections anew among the positions that are the unit's own."""
    fan_in, kernel = math.prod(c.shape[1:]), math.prod(c.shape[2:])
    row, column = torch.div(c.index, fan_in, rounding_mode="floor"), c.index % fan_in
    units = row if by_output else torch.div(column, kernel, rounding_mode="floor")
    drawn = [torch.empty(0, dtype=torch.int64)]
    for unit, k in enumerate(torch.bincount(units).tolist()):
        if not k:
            continue
        if by_output:
            drawn.append(unit * fan_in + positions.sample(fan_in, k, generator).cpu())
        else:
            at = positions.sample(c.shape[0] * kernel, k, generator).cpu()
            rows = torch.div(at, kernel, rounding_mode="floor")
            drawn.append(rows * fan_in + unit * kernel + at % kernel)
    return torch.cat(drawn).sort().values


class Control(Protocol):
    """``(model, topology, generator) -> sparse model`` with the topology's density."""

    def __call__(self, model: nn.Module, topology: Topology, generator: torch.Generator) -> nn.Module: ...


def random_network(model: nn.Module, topology: Topology, generator: torch.Generator) -> nn.Module:
    """Random pruning: as many connections anywhere in the network, with the model's values."""
    return apply(copy.deepcopy(model), shuffled(topology, within="network", generator=generator))


def shuffled_layers(model: nn.Module, topology: Topology, generator: torch.Generator) -> nn.Module:
    """As many connections in each layer, anywhere in it, with the model's values: what layer densities alone
    are worth (Frankle et al. 2021, arXiv:2009.08576)."""
    return apply(copy.deepcopy(model), shuffled(topology, within="layer", generator=generator))


def shuffled_units(model: nn.Module, topology: Topology, generator: torch.Generator) -> nn.Module:
    """As many connections out of each input unit, anywhere among the outputs, with the model's values: what
    the choice of inputs alone is worth."""
    return apply(copy.deepcopy(model), shuffled(topology, within="input", generator=generator))


def reinitialised(model: nn.Module, topology: Topology, generator: torch.Generator) -> nn.Module:
    """The same topology, its values drawn anew by ``Reinitialised``: what the topology alone is worth."""
    return initialise(apply(copy.deepcopy(model), topology), "reinitialised", generator=generator)


CONTROLS: dict[str, Control] = {
    "random": random_network,
    "shuffled": shuffled_layers,
    "shuffled-units": shuffled_units,
    "reinitialised": reinitialised,
}


def control_by_name(name: str) -> Control:
    """The control called ``name``, or an error with the nearest names.

    >>> control_by_name("shuffled") is shuffled_layers
    True
    """
    if name not in CONTROLS:
        raise unknown("control", name, CONTROLS)
    return CONTROLS[name]
