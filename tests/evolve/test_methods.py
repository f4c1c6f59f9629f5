"""Methods by name: each is the composition that its paper describes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from regraft import Topology, sparsify
from regraft.errors import InputError
from regraft.evolve import (
    METHODS,
    Evolve,
    Gradient,
    InnerProduct,
    RandomGrowth,
    magnitude,
    method,
    signed_magnitude,
)
from regraft.schedules import Constant, Cosine, Oscillating, Progress


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 10))
    return sparsify(model, density=0.2, generator=seeded())


@pytest.mark.parametrize(
    ("name", "drop", "rate"),
    [
        ("set", signed_magnitude, 0.3),
        ("set-magnitude", magnitude, 0.3),
        ("static", magnitude, 0.0),
    ],
)
def test_compositions(name: str, drop: object, rate: float) -> None:
    evolver = method(name)
    assert evolver.drop is drop
    assert evolver.grow == RandomGrowth("zeros")
    assert evolver.rate == Constant(rate)


def test_each_method_is_tested() -> None:
    assert set(METHODS) == {"set", "set-magnitude", "static", "rigl", "search", "itop"}


def test_rigl_as_in_its_paper() -> None:
    evolver = method("rigl", every=100, total=1000)
    assert (evolver.drop, evolver.grow) == (magnitude, Gradient())
    assert (evolver.every, evolver.total) == (100, 750)
    # f(t) = alpha / 2 (1 + cos(pi t / T_end))
    for update in range(8):
        assert evolver.rate(Progress(update, 8)) == pytest.approx(0.15 * (1 + math.cos(math.pi * update / 8)))
    assert evolver.progress.total == 8


def test_search_and_itop() -> None:
    search = method("search", init="fan_in", total=10)
    assert (search.drop, search.grow) == (magnitude, InnerProduct(init="fan_in"))
    assert (search.rate, search.total) == (Constant(0.05), 10)
    assert method("search", grow=InnerProduct("svd", batches=8)).grow == InnerProduct("svd", batches=8)
    itop = method("itop")
    assert (itop.drop, itop.grow, itop.rate) == (magnitude, RandomGrowth(), Cosine(0.5))
    assert METHODS["itop"].every == "4epochs"


def test_set_is_the_default_of_evolve() -> None:
    default, named = Evolve(), method("set")
    assert (default.drop, default.grow, default.rate) == (named.drop, named.grow, named.rate)


def test_options() -> None:
    evolver = method("set", rate="osv", init="fan_in", every=5, total=50, generator=seeded(4))
    assert evolver.rate == Oscillating()
    assert evolver.grow == RandomGrowth("fan_in")
    assert (evolver.every, evolver.total) == (5, 50)
    assert evolver.generator.initial_seed() == 4


@pytest.mark.parametrize("rate", [None, 0.5, "exd"])
def test_static_never_moves(rate: float | str | None) -> None:
    model = network()
    before = Topology.of(model)
    values = model[0].weight.values.detach().clone()
    evolver = method("static", rate=rate, generator=seeded()).attach(model)
    for _ in range(5):
        evolver.step()
    assert Topology.of(model) == before
    assert model[0].weight.values.equal(values)


@pytest.mark.parametrize("name", ["set", "set-magnitude"])
def test_the_others_move_and_keep_counts(name: str) -> None:
    model = network()
    before = Topology.of(model)
    done = method(name, generator=seeded()).attach(model).step()
    after = Topology.of(model)
    assert done is not None
    assert {n: c.nnz for n, c in before.items()} == {n: c.nnz for n, c in after.items()}
    for n in before:
        moved = before[n].nnz - before.overlap(after)[n][0]
        assert moved == done.dropped[n] - done.regrown[n] > 0


def test_unknown() -> None:
    with pytest.raises(InputError, match="unknown evolution method 'sett': did you mean 'set'"):
        method("sett")
