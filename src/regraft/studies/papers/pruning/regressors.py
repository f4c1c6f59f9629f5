"""Steps of ``pruning-learned``: what the features of connections are like, and scores learned from them."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from regraft import diagnose, prune, scores
from regraft.data import Data
from regraft.prune import LayerCollapseWarning
from regraft.scores import FOUR, Example, Learned, Perceptron
from regraft.studies.papers.pruning import network, steps
from regraft.studies.study import Outcome, Result, Row, Work, step

TARGET = "target"


def example(result: Result, data: Data) -> Example:
    """A network's features at its initial values, and the worth of its connections to its ticket."""
    config = result.config
    candidates, _ = prune.candidates(network.build(config, data, config["init"]))
    probe = network.probe(config, data)
    return Example(
        scores.features(candidates, probe, FOUR), scores.targets(candidates, result.model(), probe)
    )


@step(version=1)
def features(work: Work) -> Outcome:
    """What there is to learn from: correlations of features and target, and histograms of each (figure 5.7).

    Configuration: ``network.SETTING``. Needs one ticket.
    """
    seen = example(work.inputs[0], network.load(work))
    columns: dict[str, Tensor] = {
        name: torch.cat([rows[:, i] for rows in seen.rows.values()]) for i, name in enumerate(FOUR)
    }
    columns[TARGET] = torch.cat([*seen.targets.values()])
    matrix = torch.corrcoef(torch.stack([*columns.values()]))
    rows: list[Row] = [
        {"kind": "correlation", "a": a, "b": b, "value": float(matrix[i, j])}
        for (i, a), (j, b) in itertools.product(enumerate(columns), repeat=2)
    ]
    for name, values in columns.items():
        drawn = diagnose.distribution(values, bins=steps.BINS, span=(0.0, 1.0))
        rows += [
            {"kind": "bin", "a": name, "from": low, "to": high, "count": count}
            for low, high, count in zip(drawn.edges, drawn.edges[1:], drawn.counts, strict=False)
        ]
    return Outcome(rows)


@step(version=1)
def learned(work: Work) -> Outcome:
    """Fit a regressor on the tickets of other seeds, and prune and train networks by what it predicts.

    Configuration: ``network.SETTING``; regressor, trees (of a forest), fit_epochs (of a perceptron),
    test_share, seed (of the split and the fit); grid of densities and seeds. Needs tickets. Rows: ``kind``
    "fit" (R^2 and mean squared error on training and test connections), "curve" (a perceptron's error by
    epoch) and "ticket", one for each network.
    """
    config, data = work.config, network.load(work)
    seen = [example(result, data) for result in work.inputs]
    rows_NF = torch.cat([r for e in seen for r in e.rows.values()])
    worth_N = torch.cat([t for e in seen for t in e.targets.values()])
    g = torch.Generator().manual_seed(config["seed"])
    order = torch.randperm(len(rows_NF), generator=g)
    cut = round(len(order) * (1.0 - config["test_share"]))
    train, test = (rows_NF[order[:cut]], worth_N[order[:cut]]), (rows_NF[order[cut:]], worth_N[order[cut:]])
    score = _fit(config, *train)
    told: list[Row] = [{"kind": "fit", **_quality(score, *train, "train"), **_quality(score, *test, "test")}]
    told += _curve(config, train, test)
    curves: list[Row] = []
    for density, seeds in config["grid"]:
        for seed in seeds:
            one = {**config, "score": f"learned {config['regressor']}", "init": network.STANDARD}
            one |= {"seed": seed, "density": density, "shots": 1, "rounds": 0}
            outcome = _pruned(one, data, score)
            told += [
                {"score": one["score"], "init": one["init"], "seed": seed, "density": density, **row}
                for row in outcome.rows
            ]
            run = f"{100 * density:g} %, seed {seed}"
            curves += [{"run": run, **row} for row in outcome.epochs]
    return Outcome(told, curves)


def _pruned(config: Mapping[str, Any], data: Data, score: Learned) -> Outcome:
    model = network.build(config, data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerCollapseWarning)
        topology = prune.upfront(
            model, network.probe(config, data), score=score, density=config["density"],
            generator=torch.Generator().manual_seed(config["seed"]),
        )  # fmt: skip
    return steps.trained_ticket(config, data, prune.apply(model, topology), 0.0)


def _fit(config: Mapping[str, Any], rows: Tensor, worth: Tensor) -> Learned:
    whole = [Example({"all": rows}, {"all": worth})]
    return scores.fit(whole, _regressor(config), generator=torch.Generator().manual_seed(config["seed"]))


def _regressor(config: Mapping[str, Any]) -> Any:
    """As the thesis has them (section 5.2.2), a forest with fewer trees where the preset says so."""
    name = config["regressor"]
    if name == "mlp":
        return Perceptron(epochs=config["fit_epochs"])
    if name == "forest":
        from sklearn.ensemble import RandomForestRegressor

        return RandomForestRegressor(n_estimators=config["trees"], random_state=config["seed"])
    return name


def _quality(score: Learned, rows: Tensor, worth: Tensor, where: str) -> Row:
    error = (score.regressor.predict(rows) - worth).square().mean()
    return {f"r2_{where}": float(1.0 - error / worth.var(correction=0)), f"mse_{where}": float(error)}


def _curve(config: Mapping[str, Any], train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> list[Row]:
    """A perceptron's error after 1, 2, 4, ... epochs: the same training, cut short."""
    how = _regressor(config)
    if not isinstance(how, Perceptron):
        return []
    rows: list[Row] = []
    epochs = 1
    while epochs <= how.epochs:
        g = torch.Generator().manual_seed(config["seed"])
        fitted = scores.fit(
            [Example({"all": train[0]}, {"all": train[1]})], replace(how, epochs=epochs), generator=g
        )
        rows.append(
            {
                "kind": "curve",
                "epoch": epochs,
                **_quality(fitted, *train, "train"),
                **_quality(fitted, *test, "test"),
            }
        )
        epochs *= 2
    return rows
