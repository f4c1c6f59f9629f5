"""Steps of the pruning studies: train the whole network; find a sparse one and train it; compare several."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from regraft import diagnose, prune
from regraft.data import Data
from regraft.prune import LayerCollapseWarning
from regraft.prune.candidates import is_sparse
from regraft.studies.papers.pruning import network
from regraft.studies.study import Outcome, Result, Row, Work, step
from regraft.topology import Topology
from regraft.train import History

BINS = 24


@step(version=1)
def dense(work: Work) -> Outcome:
    """Train the whole network; it is also what the first round of iterative pruning prunes by.

    Configuration: ``network.SETTING``, init, seed.
    """
    config, data = work.config, network.load(work)
    model = network.build(config, data, config["init"])
    history = network.train(config, model, data)
    row = {"kind": "dense", **_trained(history, config, data)}
    return Outcome([row], _curve(history), {"model": model})


@step(version=1)
def ticket(work: Work) -> Outcome:
    """Find a sparse network and train it.

    Configuration: ``network.SETTING``; score, init, density, seed; shots of each pruning; revive, whether
    what a shot cut may come back; rounds, trainings with a pruning after each (0: prune before training).
    With rounds the cell needs the dense network of the same seed.
    """
    config, data = work.config, network.load(work)
    clock = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerCollapseWarning)  # a layer that died is a result
        model = iterative(work, data) if config["rounds"] else upfront(config, data)
    seconds = time.perf_counter() - clock
    return trained_ticket(config, data, model, seconds)


def upfront(config: Mapping[str, Any], data: Data) -> nn.Module:
    """The network pruned before training."""
    model = network.build(config, data, config["init"])
    topology = prune.upfront(
        model, network.probe(config, data), score=config["score"], density=config["density"],
        shots=config["shots"], revive=config["revive"],
        generator=torch.Generator().manual_seed(config["seed"]),
    )  # fmt: skip
    return prune.apply(model, topology)


def iterative(work: Work, data: Data) -> nn.Module:
    """The network pruned after each of several trainings, with its initial values."""
    config = work.config
    whole = work.inputs[0].model()

    def make() -> nn.Module:
        return network.build(config, data, config["init"])

    def train(model: nn.Module, start: int, stop: int | None) -> None:
        if is_sparse(model):  # pruned before
            network.train(config, model, data)
        else:
            model.load_state_dict(whole.state_dict())

    return prune.iterative(
        make, train, network.probe(config, data), score=config["score"], density=config["density"],
        rounds=config["rounds"], shots=config["shots"], revive=config["revive"], rewind_to=0,
        generator=torch.Generator().manual_seed(config["seed"]),
    ).model  # fmt: skip


def trained_ticket(
    config: Mapping[str, Any], data: Data, model: nn.Module, seconds_to_prune: float
) -> Outcome:
    """Train a sparse network; a row of what it reached and of what its topology is like."""
    paths = diagnose.connectivity(model, data.input_shape)
    history = network.train(config, model, data)
    row: Row = {
        "kind": "ticket",
        "schedule": schedule_of(config["rounds"], config["shots"]),
        **_trained(history, config, data),
        "seconds_to_prune": seconds_to_prune,
        "connections": paths.kept,
        "effective": paths.topology.nnz,
        "unreachable": len(paths.unreachable),
        **{f"density {layer.name}": layer.density for layer in paths.layers},
    }
    return Outcome([row], _curve(history), {"model": model})


def schedule_of(rounds: int, shots: int) -> str:
    """The thesis's name of a schedule (section 5.1.1).

    >>> schedule_of(0, 1), schedule_of(0, 100), schedule_of(3, 1), schedule_of(3, 10)
    ('USS', 'UMS', 'ISS', 'IMS')
    """
    return f"{'I' if rounds else 'U'}{'M' if shots > 1 else 'S'}S"


def _trained(history: History, config: Mapping[str, Any], data: Data) -> Row:
    steps = -(-len(data.train) // config["batch_size"])
    return {
        "accuracy": history.final["test_accuracy"],
        "loss": history.final["test_loss"],
        "best_accuracy": max(history.column("test_accuracy")),
        "trained_epochs": len(history.epochs),
        "iterations": steps * len(history.epochs),
        "training_seconds": sum(history.column("seconds")),
    }


def _curve(history: History) -> list[Row]:
    names = ("epoch", "train_loss", "test_loss", "test_accuracy", "seconds")
    return [{name: row[name] for name in names} for row in history.epochs]


@step(version=1)
def compare(work: Work) -> Outcome:
    """Compare sparse networks of one seed and density with each other, and their weights with all weights.

    Configuration: ``network.SETTING``, seed, density. Needs the tickets. Rows: ``kind`` "pair" (Jaccard index
    of two topologies, and what chance would give), "weights" (of the initial values that a ticket kept: their
    mean magnitude over that of all weights), and "bin" (histograms of kept values before and after training).
    """
    config, data = work.config, network.load(work)
    start = network.build(config, data)
    found = {label(result): result.model() for result in work.inputs}
    rows: list[Row] = []
    for (a, first), (b, second) in itertools.combinations(found.items(), 2):
        shared = diagnose.overlap(Topology.of(first), Topology.of(second)).whole
        pair = {"a": a, "b": b, "jaccard": shared.jaccard, "expected": shared.expected}
        rows.append({"kind": "pair", **pair})
    for name, model in found.items():
        topology = Topology.of(model)
        before = torch.cat([*diagnose.kept_values(start, topology).values()])
        after = torch.cat([*diagnose.kept_values(model, topology).values()])
        every = torch.cat([m.weight.detach().flatten() for m in start.modules() if isinstance(m, nn.Linear)])
        size = float(before.abs().mean() / every.abs().mean())
        rows.append({"kind": "weights", "a": name, "relative_magnitude": size})
        for when, values in (("initial", before), ("final", after)):
            drawn = diagnose.distribution(values, bins=BINS)
            rows += [
                {"kind": "bin", "a": name, "when": when, "from": low, "to": high, "count": count}
                for low, high, count in zip(drawn.edges, drawn.edges[1:], drawn.counts, strict=False)
            ]
    return Outcome(rows)


def label(result: Result) -> str:
    """Score and schedule of a ticket: ``"snip UMS"``."""
    config = result.config
    return f"{config['score']} {schedule_of(config['rounds'], config['shots'])}"
