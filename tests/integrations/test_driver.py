"""What the callbacks share, in a loop without any framework."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch
from torch import nn

import regraft
from regraft.errors import MismatchError, MissingDependency
from regraft.evolve import Gradient
from regraft.integrations.driver import Driver, make_sparse
from regraft.integrations.sparse_like import sparsify_like


def sparse() -> nn.Sequential:
    return regraft.sparsify(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4)), 0.5)


def started(driver: Driver, *optimizers: torch.optim.Optimizer, model: nn.Module) -> None:
    driver.start(model, optimizers, epoch_steps=5, total=20, done=0)


def test_steps_that_a_gradient_scaler_leaves_out_do_not_count() -> None:
    model = sparse()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    driver = Driver(regraft.Evolve(), "epoch", None)
    started(driver, optimizer, model=model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    for i in range(6):
        driver.open()
        scaler.scale(model(torch.randn(3, 8)).square().mean() * (float("inf") if i == 2 else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        driver.close()
    assert driver.evolver.steps == 5
    assert [done.step for done in driver.evolver.history] == [5]
    driver.stop()
    optimizer.step()
    assert driver.close() == []


def test_what_it_sees_in_a_batch_of_several_steps() -> None:
    """Two steps a batch from the second batch on: the one before an update is among them."""
    model = sparse()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    driver = Driver(regraft.Evolve("magnitude", Gradient(), every=1), 5, None)
    started(driver, optimizer, model=model)
    for steps in (1, 2, 2):
        driver.open()
        for _ in range(steps):
            model(torch.randn(3, 8)).square().mean().backward()
            optimizer.step()
        figures = driver.close()
    assert [done.step for done in driver.evolver.history] == [5]
    assert figures[0]["evolve_density"] == 0.5
    assert not model[0]._forward_hooks


def test_alternating_optimizers_count_by_the_batch() -> None:
    model, other = sparse(), sparse()
    both = nn.ModuleList([model, other])
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.01) for part in both]
    driver = Driver(regraft.Evolve(), 3, 100)
    started(driver, *optimizers, model=both)
    for i in range(6):
        driver.open()
        both[i % 2](torch.randn(3, 8)).square().mean().backward()
        optimizers[i % 2].step()
        driver.close()
    assert driver.evolver.steps == 6
    assert driver.evolver.total == 100


def test_the_state_of_something_else_is_refused() -> None:
    model = sparse()
    driver = Driver(regraft.Evolve(), "epoch", None)
    driver.load_state_dict({"epoch": 3})
    with pytest.raises(MismatchError, match="not the state of an Evolve"):
        started(driver, torch.optim.SGD(model.parameters(), lr=0.1), model=model)


def test_a_state_that_its_owner_has_loaded_counts() -> None:
    model = sparse()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolver = regraft.Evolve(every=4)
    evolver.load_state_dict({**evolver.state_dict(), "steps": 7, "updates": 1})
    driver = Driver(evolver, None, None)
    started(driver, optimizer, model=model)
    assert (evolver.steps, evolver.updates, evolver.every, evolver.total) == (7, 1, 4, None)


def test_what_is_sparse_already_stays() -> None:
    model = sparse()
    before = model[0]
    make_sparse(model, 0.1)
    assert model[0] is before
    dense = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4))
    make_sparse(dense, {"density": 0.25, "exclude": "1"})
    assert regraft.Topology.of(dense).nnz == 12


def test_a_model_becomes_as_sparse_as_a_state_where_it_is_not_yet() -> None:
    state = sparse().state_dict()
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    bias = model[2].bias.detach().clone()
    half = regraft.sparsify(model, 0.1, include="0")
    first = half[0]
    sparsify_like(half, state).load_state_dict(state)
    assert half[0] is first
    assert torch.equal(half[2].weight.index, state["2.weight.index"])
    dense = nn.Sequential(nn.Linear(8, 6))
    assert sparsify_like(dense, dense.state_dict()) is dense
    assert type(dense[0]) is nn.Linear
    assert not torch.equal(bias, half[2].bias)


@pytest.mark.parametrize(
    ("framework", "module", "extra"),
    [("lightning", "lightning", "lightning"), ("transformers", "huggingface", "huggingface")],
)
def test_without_its_framework_a_sentence(
    framework: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == framework] + [framework]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in [n for n in sys.modules if n.startswith(f"regraft.integrations.{module}")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingDependency, match=rf"pip install 'regraft\[{extra}\]'"):
        importlib.import_module(f"regraft.integrations.{module}")
