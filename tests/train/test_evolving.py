"""Recipes that evolve by each of the words: what moves, what is refused, what is noted, and fit with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from regraft import Evolve, SparseWeight, Topology, kernels, models, sparsify
from regraft.data import Data, load
from regraft.errors import InputError
from regraft.evolve import Gradient, InnerProduct, LearnedThresholds, Shrink
from regraft.kernels import native
from regraft.layers import SparseLayer
from regraft.probe import Probe
from regraft.schedules import Constant, Cosine
from regraft.train import Checkpoint, Hooks, Recipe, Run, build_model, checkpoints, fit, train_recipe
from regraft.train.evolving import EVOLUTIONS, evolver_of, rate_of

BASE: dict[str, Any] = {"model": "mlp:in-16-12-classes", "batch_size": 8, "epochs": 4, "evolve_every": "3"}
WORDS: dict[str, dict[str, Any]] = {
    "set": {"density": 0.4},
    "set-magnitude": {"density": 0.4},
    "static": {"density": 0.4},
    "rigl": {"density": 0.4},
    "search": {"density": 0.4, "zeta": 0.3, "grow_batches": 2},
    "itop": {"density": 0.4},
    "gmp": {"density": 0.2},
    "dst": {"alpha": 0.1},
    "none": {"density": 0.4},
}


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits", per_class=10, test_per_class=5)


def test_every_word_is_here() -> None:
    assert set(WORDS) == set(EVOLUTIONS)


@pytest.mark.parametrize("word", WORDS)
def test_each_word(word: str, digits: Data) -> None:
    recipe = Recipe(**{**BASE, **WORDS[word]}, evolve=word)
    model = build_model(recipe, digits)
    before = None if word == "dst" else Topology.of(model)
    done = train_recipe(recipe, digits, model=model)
    after = Topology.of(done.model)
    if before is None:
        assert all(isinstance(done.model.get_submodule(n), SparseLayer) for n in ("fc1", "fc2", "fc3"))
        assert 0 < after.density < 1
    elif word == "gmp":
        assert before.density == 1.0
        assert after.nnz == round(0.2 * (64 * 16 + 16 * 12 + 120))
    else:
        assert before.nnz == after.nnz
        assert (before != after) == (word not in ("static", "none"))
    again = train_recipe(recipe, digits).model.state_dict()
    assert all(v.equal(again[k]) for k, v in done.model.state_dict().items())


def test_what_is_noted(digits: Data) -> None:
    rows = train_recipe(Recipe(**BASE, evolve="search", density=0.3, explore=True), digits).history.epochs
    first = rows[0]
    assert first["dropped"] == first["grown"] > 0
    assert 0 <= first["regrown"] <= first["grown"]
    assert 0.3 < first["explored"] <= rows[1]["explored"] <= 1
    assert first["search_seconds"] + first["rewire_seconds"] > 0
    rows = train_recipe(Recipe(**BASE, evolve="gmp", density=0.3), digits).history.epochs
    densities = [row["density"] for row in rows if "density" in row]
    assert densities == sorted(densities, reverse=True)
    assert densities[-1] == pytest.approx(0.3, abs=1e-3)


def test_options_reach_the_rules(digits: Data) -> None:
    def evolver(**options: Any) -> Any:
        recipe = Recipe(**{**BASE, **options})
        model = build_model(recipe, digits)
        return evolver_of(recipe, model, torch.optim.SGD(model.parameters(), lr=0.1), 10, 8)

    search = evolver(
        evolve="search", density=0.3, search="lsh", k_similar=0.2, metric="ip", grow_batches=3,
        grow_samples=9, grow_init="fan_in",
    )  # fmt: skip
    assert search.grow == InnerProduct("lsh", 0.2, "ip", "fan_in", 3, 9)
    assert (search.every, search.total, search.rate) == (3, 71, Constant(0.05))
    rigl = evolver(evolve="rigl", density=0.3, zeta=0.5, grow_batches=2, evolve_every=None)
    assert (rigl.grow, rigl.every, rigl.total, rigl.rate) == (Gradient(batches=2), 100, 53, Cosine(0.5))
    assert evolver(evolve="itop", density=0.3, evolve_every=None).every == 40
    assert evolver(evolve="set", density=0.3, explore=True).explored["fc1.weight"] < 0.5
    gmp = evolver(evolve="gmp", density=0.3)
    assert isinstance(gmp, Shrink)
    assert (gmp.density, gmp.every, gmp.total) == (0.3, 3, 60)
    dst = evolver(evolve="dst", alpha=0.2)
    assert isinstance(dst, LearnedThresholds)
    assert dst.alpha == 0.2
    assert rate_of(Recipe(rate="ldv", zeta=0.4, evolve="rigl")) is not None
    assert Recipe(evolve="rigl").resolved()["evolve_every"] == "100"
    assert Recipe(evolve="dst").resolved()["epsilon"] is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"alpha": 0.1}, "alpha is 0.1, but goes with evolve 'dst', not 'set'"),
        ({"search": "svd", "evolve": "rigl"}, "search is 'svd', but goes with evolve 'search'"),
        ({"grow_batches": 2, "evolve": "set"}, "goes with evolve 'search' or 'rigl'"),
        ({"explore": True, "evolve": "gmp", "density": 0.1}, "explore is True"),
        ({"evolve": "search", "search": "exakt"}, "did you mean 'exact'"),
        ({"evolve": "search", "metric": "cosine"}, "unknown metric 'cosine'"),
        ({"evolve": "search", "k_similar": 0.2}, "does not ask for neighbours"),
        ({"evolve": "search", "search": "lsh", "k_similar": 1.2}, "k_similar is 1.2"),
        ({"evolve": "search", "grow_batches": 0}, "batches is 0"),
        ({"evolve": "search", "grow_samples": 0}, "samples is 0"),
        ({"evolve": "gmp"}, "give the density that it ends with"),
        ({"evolve": "gmp", "epsilon": 3}, "give the density that it ends with"),
        ({"evolve": "gmp", "density": 0.1, "zeta": 0.2}, "zeta says how much is replaced"),
        ({"evolve": "gmp", "density": 0.1, "evolve_every": "x"}, "evolve-every is 'x'"),
        ({"evolve": "dst", "density": 0.1}, "give alpha"),
        ({"evolve": "dst", "rate": "exd"}, "rate says how much is replaced"),
        ({"evolve": "dst", "alpha": -1.0}, "alpha is -1.0"),
        ({"evolve": "dst", "normalise_rows": True}, "normalise_rows scales"),
        ({"evolve": "dst", "dense": True}, "no topology to evolve"),
    ],
)
def test_refused_at_once(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as error:
        Recipe(**options)
    assert says in str(error.value)


def parts(rule: Any, every: int = 1) -> tuple[nn.Module, torch.optim.Optimizer, Evolve]:
    g = torch.Generator().manual_seed(0)
    model = sparsify(models.build("mlp:64-20-10", generator=g), density=0.2, generator=g)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return model, optimizer, Evolve("magnitude", rule, 0.2, every=every, generator=g).attach(model, optimizer)


def test_fit_sees_the_gradients_of_its_own_steps(digits: Data) -> None:
    """What the fused step shows of its buffers, and what hooks see of ordinary ones: the same topologies."""
    model, optimizer, evolver = parts(InnerProduct(), every=7)
    history = fit(model, digits, epochs=2, batch_size=10, optimizer=optimizer, evolver=evolver)
    assert history.step == "fused" or not native.available()
    assert len(evolver.history) == 2
    seen: list[tuple[int, Any]] = []
    other, twin, by_hand = parts(InnerProduct(), every=7)

    class Note:
        """Stands in the evolver's place, to see the batches."""

        seconds: dict[str, float] = {}  # noqa: RUF012
        watching = True

        def watch(self) -> Any:
            return by_hand.watch()

        def show(self, shown: Any) -> None:
            """Nothing: ordinary steps are watched."""

        def step(self) -> Any:
            seen.append((by_hand.steps, by_hand.watching))
            return by_hand.step()

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: Any) -> None:
            """Nothing."""

    with kernels.use("materialised"):
        fit(other, digits, epochs=2, batch_size=10, optimizer=twin, evolver=Note())
    assert [w for _, w in seen] == [step % 7 == 6 for step in range(20)]
    assert by_hand.history == evolver.history
    mine = {n: m for n, m in model.named_modules() if isinstance(m, SparseWeight)}
    for name, w in ((n, m) for n, m in other.named_modules() if isinstance(m, SparseWeight)):
        assert w.index.equal(mine[name].index)
        torch.testing.assert_close(w.values, mine[name].values)


def test_resumed_between_the_minibatches_of_an_update(digits: Data, tmp_path: Path) -> None:
    """What steps have shown so far is part of the checkpoint."""

    class Interrupted(Exception):
        """Stands for a kill."""

    def run(folder: Path, stop_at: int = 0, resume: Path | None = None) -> tuple[nn.Module, Evolve]:
        def crash(run: Run) -> None:
            if run.step == stop_at:
                raise Interrupted

        model, optimizer, evolver = parts(InnerProduct(batches=3), every=4)
        fit(
            model, digits, epochs=1, batch_size=10, optimizer=optimizer, evolver=evolver, resume=resume,
            callbacks=[Checkpoint(folder, every_steps=1), Hooks(step=crash)],
        )  # fmt: skip
        return model, evolver

    whole, evolver = run(tmp_path / "whole")
    folder = tmp_path / "interrupted"
    with pytest.raises(Interrupted):
        run(folder, stop_at=3)  # two of three minibatches are kept
    again, resumed = run(folder, resume=checkpoints.find(folder))
    assert len(resumed.history) == len(evolver.history) == 2
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("rule", [Gradient(), InnerProduct()])
def test_a_loop_of_ones_own_with_a_probe(rule: Any, digits: Data) -> None:
    model, optimizer, evolver = parts(rule, every=2)
    x, y = digits.train.x[:20], digits.train.y[:20]
    loss = nn.CrossEntropyLoss()
    for _ in range(6):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
        evolver.step(Probe(loss=loss, batches=[(x, y)]))
    assert [done.step for done in evolver.history] == [2, 4, 6]
