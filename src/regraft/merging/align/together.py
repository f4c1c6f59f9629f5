"""Many networks in one numbering of their units, whatever says which two units are alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from regraft import graph as graphs
from regraft.errors import InputError, unknown
from regraft.graph import Graph
from regraft.merging.align.entries import Order
from regraft.merging.networks import check_same, open_network
from regraft.probe import Probe

Reference = Literal["first", "mean"]
"""What networks are aligned to: the first one, or each to the mean of the others until none moves."""

Match = Callable[[int, Sequence[int], Sequence[Order]], dict[str, Tensor]]
"""``(network, others, orders) -> order``: an order of one network that suits those of the others at least as
well as the one it has in ``orders``."""


class Align(Protocol):
    """``(models, graph, probe, generator) -> models``: copies in one numbering of their hidden units, which
    compute what the models do."""

    def __call__(
        self,
        models: Sequence[nn.Module],
        graph: Graph | None = None,
        *,
        probe: Probe | None = None,
        generator: torch.Generator | None = None,
    ) -> list[nn.Module]: ...


def check_rounds(name: str, value: int) -> None:
    """Raise InputError unless ``value`` is a whole number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value!r}, but must be a whole number of 1 or more")


def check_reference(to: str) -> None:
    """Raise InputError unless there is such a reference."""
    if to not in ("first", "mean"):
        raise unknown("reference", to, ("first", "mean"))


def orders_of(
    networks: int, start: Order, match: Match, to: Reference, rounds: int, generator: torch.Generator
) -> list[dict[str, Tensor]]:
    """An order of units for each network; the first network keeps its own.

    With ``to="mean"`` each network in turn, in random order, is aligned to the mean of all others, until a
    round moves none (Ainsworth et al. 2022, arXiv:2209.04836, algorithm 3).

    Args:
        start: the order in which all units are where they are.
        rounds: most rounds for ``to="mean"``.
    """
    orders: list[dict[str, Tensor]] = [dict(start) for _ in range(networks)]
    for number in range(1, networks):
        orders[number] = match(number, [0], orders)
    if to == "mean" and networks > 2:
        for _ in range(rounds):
            moved = False
            for number in torch.randperm(networks, generator=generator, device=generator.device).tolist():
                found = match(number, [n for n in range(networks) if n != number], orders)
                moved |= any(not torch.equal(found[g], orders[number][g]) for g in found)
                orders[number] = found
            if not moved:
                break
    back = {name: torch.argsort(order) for name, order in orders[0].items()}
    return [{name: o[name][back[name]] for name in o} for o in orders]


def checked(models: Sequence[nn.Module], graph: Graph | None, probe: Probe | None) -> Graph:
    """The graph of models that share one architecture: ``graph``, or the first model's.

    Raises:
        InputError: fewer than two models, or something else than models; a model that cannot be traced; a
            graph that does not fit.
        MismatchError: the architectures or widths differ.
    """
    if isinstance(models, nn.Module) or len(models) < 2:
        number = 1 if isinstance(models, nn.Module) else len(models)
        raise InputError(f"alignment takes two or more networks, but got {number}: pass a list, as in [a, b]")
    for number, model in enumerate(models, 1):
        if not isinstance(model, nn.Module):
            raise InputError(
                f"network {number} to align is of type {type(model).__name__}, but must be a "
                "torch.nn.Module: load it first"
            )
    first, *others = (open_network(model, number) for number, model in enumerate(models, 1))
    for other in others:
        check_same(first, other)
    if graph is not None:
        graphs.check(models[0], graph)
        return graph
    shape = None
    if probe is not None and (probe.input_shape is not None or len(probe.batches)):
        shape = probe.require_input_shape("alignment")
    return graphs.trace(models[0], shape)


def moved(models: Sequence[nn.Module], graph: Graph, orders: Sequence[Order]) -> list[nn.Module]:
    """Copies of the models with their units in these orders."""
    return [graphs.take(model, graph, dict(order)) for model, order in zip(models, orders, strict=True)]
