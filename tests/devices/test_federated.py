"""Federated training on a device: updates travel as bytes, whatever made them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.devices.features import CPU, batches, mlp, on, same, seeded

from regraft.data import Split
from regraft.federated import (
    IID,
    Federation,
    Local,
    Median,
    SelectNeurons,
    SparseMerge,
    TrimmedMean,
    Update,
    federate,
    local_round,
    partitioned,
)  # fmt: skip
from regraft.federated.gossip import Gossip, gossip


def samples(where: torch.device, n: int = 3) -> Split:
    x, y = (torch.cat(t) for t in zip(*batches(where, n), strict=True))
    return Split(x, y)


STRATEGIES: dict[str, Any] = {
    "average": SparseMerge(),
    "magnitude": SparseMerge("magnitude", by_examples=False),
    "aligned": SparseMerge(align="weights"),
    "median": SparseMerge(Median(), Median(), by_examples=False),
    "trimmed": SparseMerge(TrimmedMean(0.2), TrimmedMean(0.2), by_examples=False),
    "neurons": SelectNeurons(),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_rounds(device: torch.device, name: str, tmp_path: Path) -> None:
    """The model stays where it was; samples may lie there or on the CPU."""

    def run(where: torch.device) -> Any:
        parts = partitioned(samples(CPU if name == "average" else where), IID(), 3, seeded())
        local = Local(batch_size=15, lr=0.1, unit_score="activity" if name == "neurons" else None)
        federation = Federation(STRATEGIES[name], local, rounds=2)
        folder = tmp_path / where.type
        after = federate(mlp(where), parts, federation, test=samples(where, 1), folder=folder)
        again = federate(mlp(where), parts, federation, folder=folder, resume=True)
        assert on([after.model, again.model], where)
        return after.model, again.model, [row["test_accuracy"] for row in after.history]

    same(run, device)


@pytest.mark.parametrize(
    "options", [{"evolve": "rigl"}, {"drop": "server"}, {"together": True}, {"optimizer": "adam"}]
)
def test_clients(device: torch.device, options: dict[str, Any]) -> None:
    def run(where: torch.device) -> Any:
        local = Local(batch_size=10, lr=0.05, **options)
        update = local_round(mlp(where), samples(CPU, 2), local, round=0, client="a")
        assert on(update, CPU)
        return update.layers, update.dense, update.put(mlp(where, 4))

    same(run, device)


@pytest.mark.parametrize("align", [None, "weights"])
def test_gossip(device: torch.device, align: str | None) -> None:
    def run(where: torch.device) -> Any:
        parts = partitioned(samples(where), IID(), 3, seeded())
        done = gossip(
            mlp(where), parts, Local(batch_size=20, lr=0.1), 1, Gossip(align=align), test=samples(where, 2)
        )
        assert on([*done.models, done.mean], where)
        return done.models, done.mean, [row.consensus for row in done.rounds]

    same(run, device)


def test_statistics_of_an_update_are_on_the_cpu(device: torch.device) -> None:
    numbers = {"0": torch.ones(12, device=device)}
    update = Update.of(mlp(device), round=0, client="a", examples=1, statistics=numbers)
    assert on(update, CPU)
