"""Recipes: defaults, refusals, and that each choice does what it says."""

from typing import Any

import pytest
import torch

from regraft import Topology
from regraft.data import Data, load
from regraft.errors import InputError
from regraft.layers import SparseLayer
from regraft.train import Recipe, build_model, train_recipe
from regraft.train.evolving import rate_of, steps_between

BASE: dict[str, Any] = {"model": "mlp:in-16-12-classes", "density": 0.4, "batch_size": 8, "epochs": 3}


def topologies(recipe: Recipe, data: Data) -> tuple[Topology, Topology]:
    """Before and after training."""
    model = build_model(recipe, data)
    before = Topology.of(model)
    return before, Topology.of(train_recipe(recipe, data, model=model).model)


def test_defaults_that_depend_on_others() -> None:
    assert Recipe().resolved()["epsilon"] == 20
    assert Recipe(density=0.1).resolved()["epsilon"] is None
    assert Recipe(dense=True).resolved() | {"epsilon": 0, "evolve": 0} == Recipe(dense=True).resolved() | {
        "epsilon": 0, "evolve": 0,
    }  # fmt: skip
    assert Recipe(dense=True).resolved()["epsilon"] is None
    assert Recipe(dense=True).resolved()["evolve"] == "none"
    assert Recipe().resolved()["evolve"] == "set"
    assert (Recipe().resolved()["lr"], Recipe().resolved()["momentum"]) == (0.01, 0.9)
    adam = Recipe(optimizer="adam").resolved()
    assert (adam["lr"], adam["momentum"]) == (0.001, 0.0)


def test_evolution_ends_before_the_last_epoch(data: Data) -> None:
    history = train_recipe(Recipe(**BASE), data).history
    assert [row["dropped"] > 0 for row in history.epochs] == [True, True, False]
    steps = train_recipe(Recipe(**BASE, evolve_every="2"), data).history
    assert [row["dropped"] > 0 for row in steps.epochs] == [True, True, False]
    one = train_recipe(Recipe(**{**BASE, "epochs": 1}), data).history
    assert one.final["dropped"] == 0


def test_each_method(data: Data) -> None:
    for method, moves in (("set", True), ("set-magnitude", True), ("static", False), ("none", False)):
        before, after = topologies(Recipe(**BASE, evolve=method), data)
        assert (before != after) == moves, method
        assert before.nnz == after.nnz


def test_rates_reach_the_evolver(data: Data) -> None:
    recipe = Recipe(**{**BASE, "epochs": 5}, rate="ldv", zeta=0.4)
    history = train_recipe(recipe, data).history
    expected = [0.01 + 0.39 * (1 - e / 5) for e in range(4)]
    assert history.column("rate")[:4] == pytest.approx(expected)
    assert rate_of(Recipe()) is None
    assert rate_of(Recipe(zeta=0.2)).value == 0.2


def test_normalised_rows(data: Data) -> None:
    model = train_recipe(Recipe(**BASE, normalise_rows=True), data).model
    norms = model.fc1.weight.dense().norm(dim=1)
    assert torch.allclose(norms[norms > 0], torch.ones(int((norms > 0).sum())))


def test_sparse_init(data: Data) -> None:
    kept = build_model(Recipe(**BASE, sparse_init="keep"), data).fc1.weight
    scaled = build_model(Recipe(**BASE), data).fc1.weight
    assert torch.equal(kept.index, scaled.index)
    assert torch.allclose(scaled.values, kept.values / kept.density**0.5)


def test_seeds(data: Data) -> None:
    a, b, c = (build_model(Recipe(**BASE, seed=s), data) for s in (0, 0, 1))
    assert Topology.of(a) == Topology.of(b)
    assert torch.equal(a.fc1.weight.values, b.fc1.weight.values)
    assert Topology.of(a) != Topology.of(c)


def test_include_and_exclude(data: Data) -> None:
    model = build_model(Recipe(**BASE, include=("fc*",), exclude=("fc3",)), data)
    assert [isinstance(m, SparseLayer) for m in (model.fc1, model.fc2, model.fc3)] == [True, True, False]


def test_full_batches(data: Data) -> None:
    seen = train_recipe(Recipe(**{**BASE, "batch_size": None}), data).history
    assert len(seen.epochs) == 3


def test_stopping(data: Data) -> None:
    stopped = train_recipe(Recipe(**{**BASE, "epochs": 40}, stop_accuracy=0.3, stop_extra=0), data).history
    assert stopped.final["test_accuracy"] > 0.3
    assert len(stopped.epochs) < 40
    patient = train_recipe(Recipe(**{**BASE, "epochs": 40, "lr": 1e-9}, patience=1), data).history
    assert patient.stopped is None or "has not become better" in patient.stopped


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"density": 0.1, "epsilon": 3}, "density and epsilon exclude"),
        ({"density": 0.1, "dense": True}, "density and dense exclude"),
        ({"evolve": "rigle"}, "unknown evolution method"),
        ({"dense": True, "evolve": "set"}, "no topology to evolve"),
        ({"epochs": 0}, "epochs is 0"),
        ({"zeta": -0.1}, "zeta is -0.1"),
        ({"rate": "osv:k=x"}, "options look like"),
        ({"lr": 0}, "learning rate is 0"),
        ({"evolve_every": "0epochs"}, "evolve-every is '0epochs'"),
    ],
)
def test_refused_at_once(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as error:
        Recipe(**options)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("text", "steps"),
    [("epoch", 10), ("1epoch", 10), ("50 epochs", 500), ("3", 3), ("3 steps", 3), ("step", 1)],
)
def test_times(text: str, steps: int) -> None:
    assert steps_between(text, 10) == steps


@pytest.mark.parametrize("text", ["", "often", "-3", "1.5epochs", "0"])
def test_ill_formed_times(text: str) -> None:
    with pytest.raises(InputError):
        steps_between(text, 10)


def test_a_large_network_is_made_without_its_dense_weights(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(**BASE, exclude=("fc3",), init="torch")
    usual = build_model(recipe, data)
    monkeypatch.setattr("regraft.train.recipe.LARGE", 10)
    large = build_model(recipe, data)
    again = build_model(recipe, data)
    assert Topology.of(large) == Topology.of(usual)
    state = large.state_dict()
    assert all(torch.equal(t, state[k]) for k, t in again.state_dict().items())
    for name, t in usual.state_dict().items():
        assert (t.shape, t.dtype, t.device) == (state[name].shape, state[name].dtype, state[name].device)
        if t.is_floating_point() and t.numel() > 100:
            assert state[name].std() / t.std() == pytest.approx(1.0, abs=0.2)
    monkeypatch.setattr("regraft.train.recipe.LARGE", 10**9)
    assert all(
        torch.equal(t, usual.state_dict()[k]) for k, t in build_model(recipe, data).state_dict().items()
    )


def test_a_span_of_epochs_starts_where_the_schedule_is() -> None:
    digits = load("digits", per_class=10)
    recipe = Recipe("mlp:in-8-classes", density=0.5, epochs=6, lr=0.1, lr_schedule="linear", evolve="none")
    whole = train_recipe(recipe, digits).history
    first = train_recipe(recipe, digits, span=(0, 2))
    assert first.history.column("train_loss") == whole.column("train_loss")[:2]
    rest = train_recipe(recipe, digits, model=first.model, span=(2, 6)).history
    assert rest.column("lr") == pytest.approx(whole.column("lr")[2:])
    assert len(rest.epochs) == 4
    for span in ((2, 2), (-1, 3), (2, 7)):
        with pytest.raises(InputError, match="must go forward within the recipe's 6"):
            train_recipe(recipe, digits, span=span)


def test_a_span_does_not_advance_a_schedule_that_waits_for_a_plateau() -> None:
    digits = load("digits", per_class=10)
    recipe = Recipe("mlp:in-8-classes", density=0.5, epochs=6, lr=0.1, lr_schedule="ReduceLROnPlateau")
    assert train_recipe(recipe, digits, span=(3, 5)).history.column("lr") == [0.1, 0.1]


def test_evolution_has_its_quiet_last_epoch_in_a_span_too() -> None:
    digits = load("digits", per_class=10)
    recipe = Recipe("mlp:in-8-classes", density=0.5, epochs=6, evolve="set")
    rows = train_recipe(recipe, digits, span=(2, 5)).history.epochs
    assert [bool(row.get("dropped")) for row in rows] == [True, True, False]
