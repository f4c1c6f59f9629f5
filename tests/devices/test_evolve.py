"""Topologies that change on a device: the same choices as on the CPU, the state moved along."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.devices.features import CPU, batches, convolutional, images, mlp, on, probe, same, seeded, train
from torch import nn

from regraft import Evolve, RowNormalise
from regraft.evolve import (
    DROPS,
    GROWS,
    INITS,
    METHODS,
    Gradient,
    InnerProduct,
    LearnedThresholds,
    RandomGrowth,
    Shrink,
    method,
    row_norms,
)  # fmt: skip

OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adam-amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True, foreach=False),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
}


def evolved(device: torch.device, evolver: Evolve, optimizer: str = "sgd", conv: bool = False) -> Any:
    """A network, its optimizer's state and what was done, after four steps."""
    model = convolutional(device) if conv else mlp(device)
    made = OPTIMIZERS[optimizer](model.parameters())
    evolver.attach(model, made)
    for x, y in images(device, 4) if conv else batches(device, 4):
        with evolver.watch():
            made.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
        made.step()
        evolver.step()
    state = [dict(made.state[p]) for p in model.parameters()]
    return model, state, [done.dropped for done in evolver.history], [d.regrown for d in evolver.history]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_state_of_optimizers_follows(device: torch.device, optimizer: str) -> None:
    model, *_ = same(lambda d: evolved(d, Evolve(every=2, generator=seeded()), optimizer), device)
    assert on(model, device)


@pytest.mark.parametrize(
    ("name", "conv"), [*((name, False) for name in METHODS), ("set", True), ("rigl", True), ("search", True)]
)
def test_methods(device: torch.device, name: str, conv: bool) -> None:
    same(
        lambda d: evolved(d, method(name, every=2, total=12, generator=seeded(), explore=True), conv=conv),
        device,
    )


@pytest.mark.parametrize(("drop", "grow"), list(zip(DROPS, ["gradient", "inner-product"], strict=True)))
def test_rules(device: torch.device, drop: str, grow: str) -> None:
    same(lambda d: evolved(d, Evolve(drop, grow, 0.3, every=3, generator=seeded())), device)


@pytest.mark.parametrize("init", INITS)
def test_first_values(device: torch.device, init: str) -> None:
    same(lambda d: evolved(d, Evolve(grow=RandomGrowth(init), every=2, generator=seeded())), device)


def test_gradient_rules_see_a_probe(device: torch.device) -> None:
    def run(where: torch.device) -> Any:
        model = mlp(where)
        found = []
        for rule in (Gradient(), InnerProduct()):
            evolver = Evolve("magnitude", rule, 0.4, generator=seeded()).attach(model)
            evolver.step(probe(where))
            found.append(copy.deepcopy(model))
        return found

    assert on(same(run, device), device)


@pytest.mark.parametrize("grow", GROWS)
def test_a_state_saved_there_is_loaded_on_the_cpu(device: torch.device, tmp_path: Path, grow: str) -> None:
    """In the middle between two updates, with what was explored and captured."""

    def run(where: torch.device) -> Any:
        model, (x, y) = mlp(where), batches(where)[0]
        evolver = Evolve(
            "magnitude", GROWS[grow](**({} if grow == "random" else {"batches": 2})), 0.4, every=2,
            explore=True, generator=seeded(),
        ).attach(model)  # fmt: skip
        for step in range(4):
            with evolver.watch():
                nn.functional.cross_entropy(model(x), y).backward()
            evolver.step()
            if step != 2:
                continue
            file = tmp_path / f"{where.type}.pt"
            torch.save(evolver.state_dict(), file)
            resumed = Evolve(evolver.drop, evolver.grow, 0.4, every=2, explore=True).attach(model)
            resumed.load_state_dict(torch.load(file, weights_only=True, map_location=CPU))
            evolver = resumed
        return model, evolver.explored, evolver.updates

    assert on(same(run, device), device)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_gradual_pruning(device: torch.device, scope: Any) -> None:
    def run(where: torch.device) -> Any:
        model = mlp(where, density=1.0)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        shrink = Shrink(0.2, every=2, total=6, scope=scope, generator=seeded()).attach(model, optimizer)
        train(model, optimizer, batches(where), 3, shrink.step)
        return model, [dict(optimizer.state[p]) for p in model.parameters()]

    assert on(same(run, device)[0], device)


def test_learned_thresholds(device: torch.device) -> None:
    def run(where: torch.device) -> Any:
        model = mlp(where, density=None)
        thresholds = LearnedThresholds(alpha=0.05)
        optimizer = torch.optim.SGD(thresholds.prepare(model).parameters(), lr=0.2)
        train(model, optimizer, batches(where), 4, thresholds.step)
        return thresholds.finish(model)

    assert on(same(run, device), device)


def test_rows_are_normalised(device: torch.device) -> None:
    def run(where: torch.device) -> Any:
        model = mlp(where)
        rule = RowNormalise().attach(model)
        rule.step()
        return model, [row_norms(layer.weight) for layer in model if hasattr(layer, "weight")]

    assert on(same(run, device), device)
