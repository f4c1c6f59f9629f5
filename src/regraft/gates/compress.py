"""From the big student to the student: the units most likely open, and the parents' density."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from regraft.errors import InputError
from regraft.gates.gated import Gated, attribute, axis_entries
from regraft.gates.module import Gates
from regraft.graph import Graph, take
from regraft.merging.keep import Scope
from regraft.merging.neurons.budget import within
from regraft.weight import SparseWeight


@torch.no_grad()
def best_units(gates: Gates, kept: Mapping[str, int]) -> dict[str, Tensor]:
    """The units of each group that are most likely open, increasing; among equals the first ones. Units
    that do not count in the mean of their group come last: those without connections.

    Args:
        gates: the gates.
        kept: units that stay, for each group.

    >>> gates = Gates({"0": 4}, spread=0.0)
    >>> _ = gates.log_alpha.data.copy_(torch.tensor([0.0, 3.0, -1.0, 2.0]))
    >>> best_units(gates, {"0": 2})
    {'0': tensor([1, 3])}

    Raises:
        InputError: the gates have closed a whole group.
    """
    check_open(gates)
    found = {}
    rank = torch.where(gates.counted, gates.open_probability(), -1.0)
    for name, probability in gates.split(rank).items():
        order = torch.argsort(probability, descending=True, stable=True)
        found[name] = order[: kept[name]].sort().values
    return found


def check_open(gates: Gates) -> None:
    """Raise InputError where all gates of a group are closed in evaluation: nothing comes through."""
    values = gates.distribution.certain(gates.log_alpha.detach())
    for name, value in gates.split(values).items():
        if not bool((value > 0).any()):
            raise InputError(
                f"the gates closed all {value.numel()} units of the group '{name}': lower gate_lr, or "
                "lambda_rate, so that the loss can keep some open"
            )


def compress(
    gated: Gated,
    kept: Mapping[str, int],
    counts: Mapping[str, int] | None = None,
    *,
    spec: Mapping[str, Any] | None = None,
    scope: Scope = "layer",
    fold: bool = False,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """A network of the best units, without gates; ``gated`` is not changed.

    Args:
        gated: the big student.
        kept: units of each gated group that stay.
        counts: connections that each sparse weight should have, by name: those of units whose gates are
            closed go, the weakest go where there still are more, and connections of value 0 at random
            positions fill up where there are fewer.
        spec: what a network of the kept sizes is built from, so that it can be saved.
        scope: whether the connections are counted in each ``"layer"``, or ``"global"``, in all together.
        fold: whether the units' readers take over the gates' values. The thesis drops the gates (section
            3.2.3), which is the same where they are open wholly; where they are not, training goes on better
            from weights that no half-closed gate has made small.
        generator: for the positions that fill up.

    Raises:
        InputError: the gates have closed a whole group.
    """
    units = best_units(gated.gates, kept)
    big = gated.folded() if fold else gated.model
    if counts:
        big = deepcopy(big)
        disconnect(big, gated.graph, closed_units(gated.gates))
    model = take(big, gated.graph, units, spec=spec)
    return within(model, counts or {}, scope, generator)


@torch.no_grad()
def closed_units(gates: Gates) -> dict[str, Tensor]:
    """Whether each unit's gate is closed in evaluation, bool [units], by group."""
    return gates.split(gates.distribution.certain(gates.log_alpha) == 0)


@torch.no_grad()
def disconnect(model: nn.Module, graph: Graph, cut: Mapping[str, Tensor]) -> None:
    """Remove the connections of units from sparse weights, in place.

    Args:
        cut: whether each unit of a group loses all that it has, bool [units], by group.
    """
    for name, units in cut.items():
        for slot in graph[name].of_kind("make", "read"):
            weight = attribute(model, slot.tensor)
            if isinstance(weight, SparseWeight):
                lost = torch.zeros(weight.shape[slot.axis], dtype=torch.bool)
                stop = slot.offset + units.numel() * slot.repeat
                lost[slot.offset : stop] = units.repeat_interleave(slot.repeat)
                stays = ~lost.to(weight.index.device)[axis_entries(weight, slot.axis)]
                weight.replace(weight.index[stays], weight.values[stays])
