"""``select_neurons``: the best units of several networks side by side, as one network of their size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from regraft import checkpoint
from regraft.errors import InputError, MismatchError
from regraft.graph import Graph, concatenate, take, trace
from regraft.merging.keep import Density, Scope, budgets, check_scope
from regraft.merging.networks import Network, Source, layers_of, opened
from regraft.merging.neurons import scores
from regraft.merging.neurons.budget import for_readout, within
from regraft.merging.neurons.readout import last_layer
from regraft.merging.neurons.scores import UnitScore
from regraft.probe import Probe
from regraft.select import top

Share = Literal["each", "overall"]
UnitScores = Mapping[str, Tensor]


def select_neurons(
    networks: Sequence[Source],
    probes: Probe | Sequence[Probe] | None = None,
    *,
    score: str | UnitScore | Sequence[UnitScores] = "activity",
    share: Share = "each",
    density: Density = "keep",
    scope: Scope = "global",
    readout: int | None = None,
    graph: Graph | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Merge N networks into one of their size by keeping their best units whole: no training, no alignment.

    The networks are put side by side (hidden layers block by block, outputs averaged; see
    ``graph.concatenate``), each unit is scored in its own network on its own data, and of each group of N C
    units C stay. Sparse networks are then cut to the parents' number of connections, the smallest first;
    where a layer has connections to spare, they begin at random positions with the value 0, which changes
    nothing and lets later growth and training use them.

    Args:
        networks: two or more models or paths of network files, of one architecture. They are not changed.
        probes: what the score may look at: one for all, or one for each network, of its own data.
        score: ``"activity"`` (standard deviation of the activation times the norm of the outgoing weights),
            ``"outgoing"`` (the norm alone, no data needed), ``"magnitude"`` (incoming and outgoing weights,
            as in Neuron Transplantation), ``"random"``, a function ``(model, graph, probe) -> {group name:
            scores [units]}``, or for each network the scores that its owner computed with such a function:
            one number a unit is then all that is sent of the data.
        share: ``"each"``: of every group each network keeps its best C / N units (and where N does not divide
            C, the best of the others fill up); ``"overall"``: the best C of all.
        density: ``"keep"``: as many connections as the parents have on average; a number in (0, 1]: this
            share; None: all that the kept units have, which may be more than the parents'.
        scope: ``"global"``: the connections are counted, and the smallest cut, in all layers together;
            ``"layer"``: in each layer alone. A sparse output layer has few connections, and N parents' best
            outputs need N times as many: counted alone it decides what is lost.
        readout: connections of a sparse last layer, which the other layers give up; None: as ``scope`` has
            it. Where the parents know different classes, a last layer that is chosen and refitted to labels
            (``refit_readout``) needs more than theirs.
        graph: the networks' groups; default: ``graph.trace`` of the first.
        generator: for new connections' positions, equal scores and random scores; the same seed gives the
            same network, and without one it is always the same.

    >>> from regraft import sparsify, Topology
    >>> def network(seed):
    ...     torch.manual_seed(seed)
    ...     layers = nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5)
    ...     return sparsify(nn.Sequential(*layers), density=0.2)
    >>> probe = Probe(batches=[(torch.randn(50, 20), torch.zeros(50))])
    >>> a, b = network(0), network(1)
    >>> merged = select_neurons([a, b], probe)
    >>> merged[0].out_features, Topology.of(merged).nnz == Topology.of(a).nnz
    (30, True)

    Raises:
        InputError: fewer than two networks, an unknown score, share, scope or density, a readout that is out
            of range or of a dense layer, no data for a score that needs it, scores that are NaN, weights that
            are NaN or infinite, a model that cannot be traced or concatenated.
        MismatchError: the networks differ in architecture, or probes or scores do not belong to them.
        FileError: a file cannot be read.
    """
    check_scope(scope)
    if share not in ("each", "overall"):
        raise InputError(f"share is {share!r}, but must be 'each' (best of each network) or 'overall'")
    with opened(networks) as parents:
        layers = layers_of(parents)
        if len(parents) < 2:
            raise InputError("selecting neurons needs at least two networks, but got 1: pass [a, b]")
        _check_finite(parents)
        counts = budgets(layers, density)
    models = [s if isinstance(s, nn.Module) else checkpoint.load(s) for s in networks]
    graph = trace(models[0]) if graph is None else graph
    if not graph.free:
        raise InputError(f"the {type(models[0]).__name__} has no hidden units to select from")
    found = _scored(models, graph, probes, score, generator)
    large, groups = concatenate(models, graph)
    units = {
        group.name: _best([each[group.name] for each in found], share, generator, group.name)
        for group in graph.free
    }
    merged = take(large, groups, units, spec=getattr(models[0], "spec", None))
    if counts is None:
        return merged
    if readout is None:
        return within(merged, counts, scope, generator)
    last = last_layer(merged, graph) + ".weight"
    own, others = for_readout(counts, last, readout)
    return within(within(merged, own, "layer", generator), others, scope, generator)


def _check_finite(parents: Sequence[Network]) -> None:
    for parent in parents:
        for name, part in parent.parts.items():
            parent.values(name, 0, part.stored)  # raises where they are not


def _scored(
    models: Sequence[nn.Module],
    graph: Graph,
    probes: Probe | Sequence[Probe] | None,
    score: str | UnitScore | Sequence[UnitScores],
    generator: torch.Generator | None,
) -> list[dict[str, Tensor]]:
    """The scores of each network's units, checked."""
    if isinstance(score, str) or callable(score):
        rule = scores.by_name(score) if isinstance(score, str) else score
        of_each = [probes] * len(models) if probes is None or isinstance(probes, Probe) else list(probes)
        _check_number(of_each, len(models), "probes")
        seeded = [_with_generator(probe, generator) for probe in of_each]
        given: list[UnitScores] = [rule(m, graph, p) for m, p in zip(models, seeded, strict=True)]
    else:
        given = list(score)
        _check_number(given, len(models), "scores")
    return [_checked(each, graph, number) for number, each in enumerate(given, 1)]


def _with_generator(probe: Probe | None, generator: torch.Generator | None) -> Probe:
    probe = Probe() if probe is None else probe
    return replace(probe, generator=generator) if probe.generator is None else probe


def _check_number(given: Sequence[object], networks: int, what: str) -> None:
    if len(given) != networks:
        raise MismatchError(
            f"got {len(given)} {what} for {networks} networks: pass one for each, in the same order"
        )


def _checked(given: UnitScores, graph: Graph, number: int) -> dict[str, Tensor]:
    found = {}
    for group in graph.free:
        own = given.get(group.name)
        if own is None or own.shape != (group.units,):
            got = "nothing" if own is None else f"shape {tuple(own.shape)}"
            raise MismatchError(
                f"the scores of network {number} have {got} for '{group.name}', which has {group.units} units"
            )
        if bool(own.isnan().any()):
            raise InputError(
                f"the scores of network {number} for '{group.name}' are NaN: the network has diverged, or "
                "its data is not finite"
            )
        found[group.name] = own.detach().double().cpu()
    return found


def _best(of_each: Sequence[Tensor], share: Share, generator: torch.Generator | None, name: str) -> Tensor:
    """Unit numbers in the concatenation of the C best of N C units."""
    n, units = len(of_each), of_each[0].numel()
    together = torch.cat(list(of_each))
    if share == "overall":
        return top(together, units, generator, name=f"'{name}'")
    own = [top(each, units // n, generator, name=f"'{name}'") + i * units for i, each in enumerate(of_each)]
    chosen = torch.zeros(n * units, dtype=torch.bool)
    chosen[torch.cat(own)] = True
    rest = (~chosen).nonzero().squeeze(1)
    chosen[rest[top(together[rest], units % n, generator, name=f"'{name}'")]] = True
    return chosen.nonzero().squeeze(1)
