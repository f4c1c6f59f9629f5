"""Signals, scores, pruning, initial values, controls and diagnoses on a device."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.devices.features import (
    CPU,
    batches,
    convolutional,
    images,
    mlp,
    on,
    probe,
    same,
    seeded,
    train,
)  # fmt: skip
from torch import nn

from regraft import Topology, diagnose, prune, scores, signals
from regraft.scores import REGRESSORS, SCORES, Example, Perceptron, weights_of

SIGNALS: dict[str, signals.Signal] = {
    "gradient": signals.gradient, "hessian-gradient": signals.hessian_gradient, "flow": signals.flow,
    "variance-flow": signals.variance_flow,
}  # fmt: skip
COMPOSED = ("stacked(snip, synflow)", "inverted(snip)", "grasp:temperature=2")


def network(device: torch.device, conv: bool) -> tuple[nn.Module, Any]:
    model = convolutional(device) if conv else mlp(device)
    return model, probe(device, images(device) if conv else None)


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("name", SIGNALS)
def test_signals(device: torch.device, name: str, conv: bool) -> None:
    """Values and active connections are given on the CPU, as they come from a file or a topology."""

    def run(where: torch.device) -> Any:
        model, look = network(where, conv)
        values = {n: w.values.detach().cpu() * 2 for n, w in weights_of(model).items()}
        active = {n: v > 0 for n, v in values.items()}
        return [SIGNALS[name](model, look), SIGNALS[name](model, look, values=values, active=active)]

    assert on(same(run, device), device)


@pytest.mark.parametrize(
    ("name", "conv"), [*((n, False) for n in (*SCORES, *COMPOSED)), ("grasp", True), ("synflow", True)]
)
def test_scores(device: torch.device, name: str, conv: bool) -> None:
    def run(where: torch.device) -> Any:
        model, look = network(where, conv)
        return scores.parse(name)(model, look)

    assert on(same(run, device), device)


@pytest.mark.parametrize("name", ["grasp", "synflow", "stacked(snip, synflow)"])
def test_batches_on_the_cpu_are_taken_over(device: torch.device, name: str) -> None:
    same(lambda d: scores.parse(name)(mlp(d), probe(CPU)), device)


def small(name: str) -> Any:
    """A regressor that is fitted and asked in no time; by name where the usual one is quick."""
    if name == "mlp":
        return Perceptron(epochs=1)
    if name != "forest":
        return name
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(2, max_depth=3, random_state=0)


@pytest.mark.parametrize("regressor", REGRESSORS)
def test_learned_scores(device: torch.device, regressor: str, tmp_path: Path) -> None:
    def run(where: torch.device) -> Any:
        model, look = network(where, False)
        rows = scores.features(model, look, scores.TEN)
        ticket = mlp(where, density=0.4)
        train(ticket, torch.optim.SGD(ticket.parameters(), lr=0.1), batches(where))
        wanted = scores.targets(model, ticket, look)
        learned = scores.fit(
            [Example(rows, wanted)], small(regressor), features=scores.TEN, generator=seeded()
        )
        learned.save(tmp_path / "score.safetensors")
        again = scores.Learned.load(tmp_path / "score.safetensors")
        predicted = again(model, look)
        assert on([rows, wanted, predicted], where)
        return rows, wanted, predicted

    same(run, device)


@pytest.mark.parametrize(
    ("name", "sparse"), [*((name, False) for name in SCORES), ("magnitude", True), ("snip", True)]
)
def test_upfront(device: torch.device, name: str, sparse: bool) -> None:
    def run(where: torch.device) -> Any:
        model = mlp(where, density=0.8 if sparse else None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", prune.LayerCollapseWarning)
            topology = prune.upfront(
                model, probe(where), score=name, density=0.2, shots=2, generator=seeded()
            )
        return prune.apply(model, topology), {n: c.index for n, c in topology.items()}

    assert on(same(run, device)[0], device)


@pytest.mark.parametrize("options", [{"revive": True}, {"scope": "layer"}, {"floor": 5}, {"path": "linear"}])
def test_ways_of_upfront(device: torch.device, options: dict[str, Any]) -> None:
    def run(where: torch.device) -> Any:
        found = prune.upfront(
            mlp(where, density=None), probe(where), score="snip", density=0.3, shots=3,
            generator=seeded(), **options,
        )  # fmt: skip
        return {n: c.index for n, c in found.items()}

    same(run, device)


def test_receptive_fields(device: torch.device) -> None:
    def run(where: torch.device) -> Any:
        model = mlp(where, density=None, sizes=(36, 16, 12, 4))
        found = prune.receptive_fields(
            model, probe(where, batches(where, 2, 36)), density=0.2, generator=seeded()
        )
        return {n: c.index for n, c in found.items()}

    same(run, device)


@pytest.mark.parametrize(("score", "rewind"), [("magnitude", 0), ("snip", 1), ("magnitude", None)])
def test_iterative(device: torch.device, score: str, rewind: int | None, tmp_path: Path) -> None:
    def run(where: torch.device) -> Any:
        def training(model: nn.Module, start: int, stop: int | None) -> float:
            epochs = (2 if stop is None else stop) - start
            train(model, torch.optim.SGD(model.parameters(), lr=0.1), batches(where), epochs)
            return 0.5

        ticket = prune.iterative(
            lambda: mlp(where, density=None), training, probe(where), score=score, density=0.2, rounds=2,
            rewind_to=rewind, epochs=2, generator=seeded(), folder=tmp_path / where.type,
        )  # fmt: skip
        return ticket.model, {n: c.index for n, c in ticket.topology.items()}

    assert on(same(run, device)[0], device)


@pytest.mark.parametrize("name", ["he", "he-normal", "torch", "bimodal", "permuted", "saw"])
def test_initial_values(device: torch.device, name: str) -> None:
    rules: dict[str, Any] = {
        "bimodal": prune.Bimodal(), "permuted": prune.permuted, "saw": prune.ScoresAsWeights(scores.snip)
    }  # fmt: skip
    rule = rules.get(name) or prune.Reinitialised(name)  # type: ignore[arg-type]
    for density in (None, 0.5):
        result = same(
            lambda d, density=density: prune.initialise(
                mlp(d, density=density), rule, probe(d), generator=seeded()
            ),
            device,
        )
        assert on(result, device)


@pytest.mark.parametrize("name", prune.CONTROLS)
def test_controls(device: torch.device, name: str) -> None:
    def run(where: torch.device) -> Any:
        model = mlp(where, density=None)
        topology = prune.upfront(model, score="magnitude", density=0.3, generator=seeded())
        return prune.CONTROLS[name](model, topology, seeded())

    assert on(same(run, device), device)


def test_diagnoses(device: torch.device) -> None:
    def run(where: torch.device) -> Any:
        model = mlp(where, density=None)
        a = prune.upfront(model, score="magnitude", density=0.3, generator=seeded())
        b = prune.upfront(model, probe(where), score="snip", density=0.3, generator=seeded())
        pruned = prune.apply(copy.deepcopy(model), a)
        paths = diagnose.connectivity(pruned)
        images = diagnose.connectivity(convolutional(where), (1, 6, 6))
        return [
            diagnose.overlap(a, b).plain(),
            diagnose.distribution(model[0].weight).plain(),
            diagnose.kept_values(model, a), diagnose.kept_values(pruned, a),
            diagnose.gradient_flow(model, probe(where)), diagnose.gradient_flow(model, probe(where), a),
            [(layer.kept, layer.effective) for layer in paths.layers], list(paths.unreachable),
            [(layer.kept, layer.effective) for layer in images.layers],
        ]  # fmt: skip

    same(run, device)


def test_a_topology_of_the_cpu_fits_a_network_there(device: torch.device) -> None:
    topology = Topology.of(mlp(CPU, 3, 0.2))
    same(lambda d: prune.apply(mlp(d, density=None), topology), device)
