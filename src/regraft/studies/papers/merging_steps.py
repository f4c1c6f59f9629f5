"""The steps that the studies of thesis 1 share: parents, their merges, topologies without training."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regraft import checkpoint, evolve, measure, models
from regraft.data import Data, Split
from regraft.evolve import RandomGrowth, normalise_rows
from regraft.layers import sparsify
from regraft.merging.grid import Evaluated, merge_grid
from regraft.studies.study import Outcome, Result, Row, Work, step
from regraft.topology import Topology
from regraft.train import History, Recipe, seeds, train_recipe
from regraft.train.callbacks import EvolveTopology, Hooks
from regraft.train.evolving import rate_of, steps_between
from regraft.train.run import Callback, Run

PASSED = 0.85  # the accuracy at which thesis 1 counts down its last 200 epochs (section 7.5)
OF_AN_EPOCH = ("epoch", "train_loss", "test_loss", "test_accuracy", "lr", "rate", "dropped", "regrown")


@dataclass(frozen=True)
class KeptRandom(RandomGrowth):
    """Random growth in which a connection that is dropped and drawn again at once keeps its value, as the
    masks of thesis 1 had it (sections 7.5 and 11.1)."""

    keep_regrown: bool = True


class _Evolution(EvolveTopology):
    """Thesis 1's evolution, attached when training starts."""

    def __init__(self, recipe: Recipe, epoch_steps: int) -> None:
        evolver = evolve.method(
            recipe.evolution,
            rate=rate_of(recipe),
            grow=KeptRandom(recipe.grow_init),
            every=steps_between(recipe.evolve_every or "epoch", epoch_steps),
            total=(recipe.epochs - 1) * epoch_steps + 1,
            generator=seeds.stream(recipe.seed, "evolve"),
        )
        super().__init__(evolver)
        self._evolve = evolver

    def on_start(self, run: Run) -> None:
        self._evolve.attach(run.model, run.optimizer)


def recipe_of(config: Mapping[str, Any]) -> Recipe:
    """The recipe of a parent's cell: its options, with the cell's sparsity (or epsilon) and seed."""
    density = None if "epsilon" in config else 1.0 - float(config["sparsity"])
    return Recipe(
        **config["recipe"], density=density, epsilon=config.get("epsilon"), seed=int(config["seed"])
    )


def options_of(recipe: Recipe) -> dict[str, Any]:
    """A recipe as a configuration: the options that are not the defaults, without density and seed.

    >>> options_of(Recipe("mlp:4-2", density=0.5, lr=1.0, seed=3))
    {'model': 'mlp:4-2', 'lr': 1.0}
    """
    own = ("density", "epsilon", "seed")
    found = {f.name: getattr(recipe, f.name) for f in fields(recipe) if f.name not in own}
    return {name: v for name, v in found.items() if v != getattr(Recipe, name)}


def data_of(work: Work, config: Mapping[str, Any]) -> Data:
    """A cell's data; with ``"outputs"`` among its options, networks get so many outputs, of which those
    beyond the classes are never right; with ``"labels"``, training samples of these labels alone."""
    own = ("name", "outputs")
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in config["data"].items() if k not in own}
    data = work.data(config["data"]["name"], flatten=True, **options)
    unused = range(data.classes, config["data"].get("outputs", 0))
    data = replace(data, class_names=(*data.class_names, *(f"unused {i}" for i in unused)))
    labels = config.get("labels")
    return data if labels is None else replace(data, train=of_labels(data.train, labels))


def of_labels(split: Split, labels: Sequence[int]) -> Split:
    """The samples that have one of these labels."""
    return split.select(torch.isin(split.y, torch.tensor(list(labels))).nonzero().squeeze(1))


@step
def parent(work: Work) -> Outcome:
    """Train one network. Configuration: ``data``, ``recipe``, ``sparsity`` or ``epsilon``, ``seed``;
    ``labels`` to train on, ``keep_regrown``, ``patterns`` (epochs at which the first layer is looked at),
    ``test_on`` (labels of further test sets by name), ``watch`` (test samples of each class that are enough
    for the curve)."""
    config = work.config
    data, recipe = data_of(work, config), recipe_of(config)
    watched = replace(data, test=_first_of_each(data.test, config["watch"])) if "watch" in config else data
    patterns: dict[int, list[int]] = {}

    def look(run: Run) -> None:
        if run.epoch in config.get("patterns", ()):
            patterns[run.epoch] = _pattern(run.model)

    callbacks: list[Callback] = [Hooks(epoch_end=look, name="patterns")]
    trained = recipe
    # a full network has no connection to draw: evolution leaves it alone (thesis 1, section 7.6.3)
    if config.get("keep_regrown") and recipe.density != 1.0 and recipe.evolution != "none":
        size = len(data.train) if recipe.batch_size is None else recipe.batch_size
        callbacks.append(_Evolution(recipe, -(-len(data.train) // size)))
        trained = replace(recipe, evolve="none")
    if 0 in config.get("patterns", ()):
        from regraft.train.recipe import build_model

        patterns[0] = _pattern(build_model(trained, data))
    made = train_recipe(trained, watched, callbacks=callbacks)
    patterns[len(made.history.epochs)] = _pattern(made.model)
    rows = [_parent_row(made.model, made.history, data)]
    for name, labels in config.get("test_on", {}).items():
        figures = measure.evaluate(made.model, of_labels(data.test, labels))
        rows.append({"kind": "tested", "on": name, "accuracy": figures["accuracy"], "loss": figures["loss"]})
    if config.get("patterns"):
        rows += [
            {"kind": "pattern", "epoch": epoch, "counts": " ".join(map(str, counts))}
            for epoch, counts in sorted(patterns.items())
        ]
    epochs = [{k: line[k] for k in OF_AN_EPOCH if k in line} for line in made.history.epochs]
    return Outcome(rows, epochs, {"model": made.model})


def _first_of_each(split: Split, count: int) -> Split:
    """The first samples of each class."""
    found = [(split.y == c).nonzero().squeeze(1)[:count] for c in range(int(split.y.max()) + 1)]
    return split.select(torch.cat(found))


def _pattern(model: nn.Module) -> list[int]:
    return [int(c) for c in Topology.of(model).connectivity_pattern().tolist()]


def _parent_row(model: nn.Module, history: History, data: Data) -> Row:
    normal = copy.deepcopy(model)
    normalise_rows(normal)
    accuracy, figures = history.column("test_accuracy"), measure.evaluate(model, data.test)
    passed = next((i for i, a in enumerate(accuracy, 1) if a > PASSED), None)
    return {
        "kind": "parent", "accuracy": figures["accuracy"], "loss": figures["loss"],
        "best_accuracy": max(accuracy), "epochs": len(accuracy), "passed": passed,
        "density": Topology.of(model).density, "how": history.step,
        "normalised_accuracy": measure.evaluate(normal, data.test)["accuracy"],
    }  # fmt: skip


@functools.lru_cache(maxsize=64)
def _network(path: Path) -> nn.Module:
    return checkpoint.load(path / "model.safetensors")


def network_of(result: Result) -> nn.Module:
    """A parent's network, read once a process; not to be changed."""
    return _network(result.folder)


@step
def merged(work: Work) -> Outcome:
    """Merge the networks of the needed cells by all rules. Configuration: ``seed`` of the random rule,
    ``then`` (lists of steps after merging), ``rules``, ``test_on``; and what names the pair in tables."""
    parents = [network_of(r) for r in work.inputs]
    data = data_of(work, {**work.inputs[0].config, "labels": None})
    sets = work.config.get("test_on", {"all": None})
    names = {"weights": tuple(work.config["rules"]), "biases": tuple(work.config["rules"])}
    rows = [pair_row(parents)]
    for on, labels in sets.items():
        found = merge_grid(
            parents,
            data.test if labels is None else of_labels(data.test, labels),
            then=[tuple(way) for way in work.config["then"]],
            generator=seeds.stream(work.config["seed"], "merge"),
            **names,
        )
        rows += merged_rows(found, on)
    return Outcome(rows)


def merged_rows(found: Sequence[Evaluated], on: str) -> list[Row]:
    """A row for each merged network, tested on the set called ``on``."""
    return [
        {
            "kind": "merged", "on": on, "weights": m.weights, "biases": m.biases,
            "then": " ".join(m.then) or "union", "accuracy": m.accuracy, "loss": m.loss, "density": m.density,
            "nnstd": sum(m.nnstd) / len(m.nnstd), "nnstd_a": m.nnstd[0], "nnstd_b": m.nnstd[-1],
        }
        for m in found
    ]  # fmt: skip


def pair_row(parents: Sequence[nn.Module]) -> Row:
    """How far the first two networks are from each other, and how far chance would have them."""
    a, b = (_marks(parents[i]) for i in (0, -1))
    both = sum(int((a[name] & b[name]).sum()) for name in a)
    either = sum(int((a[name] | b[name]).sum()) for name in a)
    first = {name: int(m.sum()) / m.numel() for name, m in a.items()}
    other = {name: int(m.sum()) / m.numel() for name, m in b.items()}
    shared = sum(m.numel() * first[n] * other[n] for n, m in a.items())
    union = sum(m.numel() * (first[n] + other[n]) for n, m in a.items()) - shared
    return {"kind": "parents", "nnstd": 1.0 - both / either, "expected_nnstd": 1.0 - shared / union}


def _marks(model: nn.Module) -> dict[str, torch.Tensor]:
    found = {}
    for name, connections in Topology.of(model).items():
        found[name] = torch.zeros(connections.size, dtype=torch.bool)
        found[name][connections.index] = True
    return found


@step
def drawn(work: Work) -> Outcome:
    """Pairs of random topologies and their NNSTD; one evolution of such a network for each rate, and the
    share of connections that it deactivates. Configuration: ``model``, ``sparsity``, ``pairs``, ``rates``,
    ``seed``.
    """
    config = work.config
    g = seeds.stream(config["seed"], "topologies")

    def network() -> nn.Module:
        dense = models.build(config["model"], device="meta").to_empty(device="cpu")
        for p in dense.parameters():
            nn.init.normal_(p, generator=g)
        return sparsify(dense, 1.0 - config["sparsity"], allocate="uniform", generator=g)

    rows = [{**pair_row([network(), network()]), "kind": "random pair"} for _ in range(config["pairs"])]
    for rate in config["rates"]:
        model = network()
        before = Topology.of(model)
        evolver = evolve.method("set-magnitude", rate=rate, generator=g).attach(model)
        evolver.step()
        gone = (before - Topology.of(model)).nnz / before.nnz
        rows.append({"kind": "deactivated", "rate": rate, "share": gone})
    return Outcome(rows)


def deactivation(sparsity: float, rate: float) -> float:
    """Probability that an active weight is deactivated by an evolution (thesis 1, section 7.6.3):
    e (1 - f / (s + f)) with f = (1 - s) e; 0 for a dense network.

    >>> deactivation(0.0, 0.5), round(deactivation(0.5, 0.5), 4), round(deactivation(0.99, 0.5), 4)
    (0.0, 0.3333, 0.4975)
    """
    if sparsity == 0.0:
        return 0.0
    selected = (1.0 - sparsity) * rate
    return rate * (1.0 - selected / (sparsity + selected))
