"""What federated training of sparse networks is measured against, on the same clients and settings.

Server-side baselines are settings of ``federate`` and nothing else. ``personal`` keeps a network on each
client: DisPFL's average by presence, or no exchange at all.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from regraft import measure, positions
from regraft.data import Split
from regraft.errors import InputError, unknown
from regraft.federated import wire
from regraft.federated.client import Local, local_round
from regraft.federated.strategy import SparseMerge
from regraft.federated.update import Entries, Plan, Update
from regraft.merging import Merger
from regraft.train import seeds


@dataclass(frozen=True)
class Baseline:
    """A published method as settings.

    Attributes:
        strategy: of the server.
        dense: whether the model is dense.
        evolve: method by which clients change the topology; None leaves the one of the settings.
        pooled: whether all samples are on one client.
    """

    strategy: SparseMerge
    dense: bool = False
    evolve: str | None = "none"
    pooled: bool = False

    def local(self, local: Local) -> Local:
        """What clients do: as in ``local``, but for the topology."""
        if self.evolve is None:
            return local
        return replace(local, evolve=self.evolve, together=False, drop="client")


BASELINES: dict[str, Baseline] = {
    # McMahan et al. 2017, arXiv:1602.05629
    "dense-fedavg": Baseline(SparseMerge(), dense=True),
    # one random topology that stays: what sparsity alone costs
    "fixed-mask": Baseline(SparseMerge()),
    # Bibikar et al. 2022, arXiv:2112.09824: clients prune by magnitude and grow by gradient; the server
    # averages over the clients that have the position, weighted by examples, and prunes by magnitude
    "feddst": Baseline(SparseMerge(over="present"), evolve="rigl"),
    "centralised": Baseline(SparseMerge(), evolve=None, pooled=True),
    "centralised-dense": Baseline(SparseMerge(), dense=True, pooled=True),
}
"""Baselines with a server, by name. FedDST's clients here evolve at the rounds and the rate of the settings,
and before they train."""


def by_name(name: str) -> Baseline:
    """The baseline called ``name``, or an error with the nearest names."""
    if name not in BASELINES:
        raise unknown("baseline", name, BASELINES)
    return BASELINES[name]


@dataclass(frozen=True)
class Personal:
    """What ``personal`` gives back.

    Attributes:
        models: each client's own network.
        accuracy: of each on the test samples.
        upload_bytes: sent in all rounds by all clients.
    """

    models: list[nn.Module]
    accuracy: list[float]
    upload_bytes: int


def personal(
    model: nn.Module,
    clients: Sequence[Split],
    local: Local,
    *,
    rounds: int,
    neighbours: int,
    test: Split,
    dtype: str = "float32",
    seed: int = 0,
) -> Personal:
    """A network for each client, as in DisPFL (Dai et al. 2022, arXiv:2206.00187, algorithm 1): every client
    keeps its own topology; in each round it hears so many others at random, takes at each of its positions
    the average over those that have the position, itself included, evolves and trains.

    With ``neighbours=0`` nothing is exchanged: training on one's own samples alone.

    Args:
        model: what all start from; it is not changed.
        rounds, local, seed: as for ``federate``.
        neighbours: clients that each one hears in a round.
        test: samples on which every client's network is measured in the end.
        dtype: type of values on the way.

    Raises:
        InputError: no client, or a number of neighbours that is not in [0, clients).
    """
    if not clients or not 0 <= neighbours < len(clients):
        raise InputError(
            f"neighbours is {neighbours!r}, but must be in [0, {len(clients)}), the number of clients"
        )
    plan, sent = Plan.of(model), 0
    updates = [Update.of(model, round=0, client=str(i), examples=len(c)) for i, c in enumerate(clients)]
    for number in range(rounds):
        stream = seeds.stream(seed, f"neighbours of round {number}")
        if neighbours:
            sent += sum(len(wire.encode(u, plan, dtype)) for u in updates) * neighbours
        heard = [_others(i, len(clients), neighbours, stream) for i in range(len(clients))]
        starts = [_average(model, [updates[i], *(updates[j] for j in own)]) for i, own in enumerate(heard)]
        updates = [
            local_round(start, split, local, round=number, client=str(i), seed=seed)
            for i, (start, split) in enumerate(zip(starts, clients, strict=True))
        ]
    models = [update.put(copy.deepcopy(model)) for update in updates]
    return Personal(models, [measure.evaluate(m, test)["accuracy"] for m in models], sent)


def _others(own: int, clients: int, count: int, generator: torch.Generator) -> list[int]:
    others = torch.tensor([i for i in range(clients) if i != own])
    drawn: list[int] = others[torch.randperm(len(others), generator=generator)[:count]].tolist()
    return drawn


def _average(model: nn.Module, updates: Sequence[Update]) -> nn.Module:
    """The first update's topology, with at each position the average of the updates that have it."""
    if len(updates) == 1:
        return updates[0].put(copy.deepcopy(model))
    merger, shell = Merger("average", "average", over="present"), copy.deepcopy(model)
    for update in updates:
        merger.add(update.put(shell))
    union = Update.of(merger.result(None), round=0, client="", examples=1)
    own = {n: _at(union.layers[n], entries.index) for n, entries in updates[0].layers.items()}
    return replace(union, layers=own).put(shell)


def _at(entries: Entries, index: Tensor) -> Entries:
    """The entries at some of their positions."""
    assert bool(positions.contains(entries.index, index).all())
    return Entries(index, entries.values[torch.searchsorted(entries.index, index)])
