"""benchmarks/long_run.py made short: every drop rule with every grow rule, each update checked."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
UPDATES = 30


def load() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("long_run", BENCHMARKS / "long_run.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


LONG = load()
JOBS = list(LONG.jobs(UPDATES))


@pytest.mark.parametrize("job", JOBS, ids=[name for name, _, _ in JOBS])
def test_every_update_keeps_what_it_promises(job: tuple) -> None:  # type: ignore[type-arg]
    _, count, work = job
    watch = LONG.Watch(count)
    work(watch)
    first, last = watch.seen
    assert last["files"] <= first["files"]
    assert last["tasks"] <= first["tasks"]


def test_every_rule_is_run() -> None:
    names = {name for name, _, _ in JOBS}
    for drop in LONG.DROPS:
        for grow in LONG.GROWS:
            assert any(re.match(rf"{drop} / {grow}\b", name) for name in names)
    assert {name.rsplit(" / ")[-1] for name in names if "/" in name} == set(LONG.OPTIMIZERS)


def broken(kind: str, index: torch.Tensor, values: torch.Tensor, state: torch.Tensor) -> None:
    if kind == "order":
        index[[0, 1]] = index[[1, 0]]
    elif kind == "twice":
        index[1] = index[0]
    elif kind == "range":
        index[-1] = LONG.SHAPES[0] * LONG.SHAPES[1]
    elif kind == "survivor":
        values += 1e-7
    elif kind == "momentum":
        state += 1.0
    elif kind == "nan":
        values[0] = float("nan")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("order", "out of order"),
        ("twice", "out of order or twice"),
        ("range", "out of range"),
        ("survivor", "a survivor changed"),
        ("momentum", "has a past"),
        ("nan", "not finite"),
        ("none", None),
    ],
)
def test_the_checks_see_what_is_broken(kind: str, said: str | None) -> None:
    net = LONG.make_net(0)
    optimizer = LONG.OPTIMIZERS["sgd"](net.parameters())
    evolver = LONG.Evolve("magnitude", "random", 0.3).attach(net, optimizer)
    net(torch.randn(4, LONG.SHAPES[0])).square().mean().backward()
    optimizer.step()
    weights = {"0.weight": net[0].weight}
    before = LONG.look(weights, optimizer)
    done = evolver.evolve()
    after = LONG.look(weights, optimizer)
    index, values, state = after["0.weight"]
    broken(kind, index, values, state["momentum_buffer"])
    if said is None:
        LONG.check(before, after, weights, done)
    else:
        with pytest.raises(AssertionError, match=said):
            LONG.check(before, after, weights, done)
