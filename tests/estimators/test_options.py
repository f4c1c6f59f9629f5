"""Parameters that cannot be used are named, with what was expected."""

import numpy as np
import pytest
import torch

from regraft.errors import InputError
from regraft.estimators import SparseMLPClassifier, options

X = np.random.default_rng(0).normal(size=(20, 6))
Y = np.arange(20) % 2


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_iter", 0, "max_iter is 0"),
        ("max_iter", 2.5, "whole number of epochs"),
        ("n_networks", True, "n_networks is True"),
        ("n_iter_no_change", -1, "1 or more"),
        ("alpha", -0.1, "0 or more"),
        ("alpha", "much", "alpha is 'much'"),
        ("tol", float("nan"), "tol is nan"),
        ("momentum", 1.0, r"\[0, 1\)"),
        ("early_stopping", 1, "True or False"),
        ("warm_start", None, "True or False"),
        ("validation_fraction", 1.0, r"\(0, 1\)"),
        ("density", 0, "density is 0"),
        ("density", 0.001, "would get no connection"),
        ("hidden_layer_sizes", (10, 0), "hidden_layer_sizes is"),
        ("hidden_layer_sizes", "10", "hidden_layer_sizes is '10'"),
        ("hidden_layer_sizes", 3.5, "hidden_layer_sizes is 3.5"),
        ("learning_rate_init", 0.0, "'auto' or a positive number"),
        ("learning_rate_init", "fast", "'auto' or a positive number"),
        ("batch_size", 0, "'auto' or a whole number"),
        ("batch_size", 1.5, "'auto' or a whole number"),
        ("device", "gpu", "device is 'gpu'"),
        ("device", 3.5, "try 'cpu'"),
        ("evolve", "sett", "did you mean 'set'"),
        ("rate", 1.5, r"rate is 1.5, but must be in \[0, 1\]"),
        ("rate", "cosin", "did you mean 'cosine'"),
        ("optimizer", "adm", "did you mean 'adam'"),
        ("learning_rate", "cosin", "did you mean 'cosine'"),
        ("activation", "rely", "did you mean 'relu'"),
        ("allocate", "unifrom", "did you mean 'uniform'"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(name: str, value: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        SparseMLPClassifier(**{"max_iter": 1, "learning_rate": "cosine", name: value}).fit(X, Y)


def test_merging_needs_hidden_units() -> None:
    with pytest.raises(InputError, match="hidden_layer_sizes is empty"):
        SparseMLPClassifier(hidden_layer_sizes=(), n_networks=2).fit(X, Y)


@pytest.mark.parametrize("sizes", [(), 7, (7, 5), [7], np.array([7, 5])])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
def test_sizes_of_every_form_with_every_optimizer(sizes: object, optimizer: str) -> None:
    model = SparseMLPClassifier(
        hidden_layer_sizes=sizes, optimizer=optimizer, density=0.6, max_iter=2, learning_rate="cosine"
    ).fit(X, Y)
    hidden = [] if isinstance(sizes, tuple) and not sizes else np.atleast_1d(sizes).tolist()
    assert model.module_.spec["sizes"] == [6, *hidden, 2]


def test_numpy_numbers_are_numbers() -> None:
    model = SparseMLPClassifier(
        max_iter=np.int64(2), density=np.float32(0.5), alpha=np.float64(0.0), batch_size=np.int32(7),
        rate=np.float64(0.3), learning_rate="cosine", warm_start=np.bool_(False),
    ).fit(X, Y)  # fmt: skip
    assert model.density_ == pytest.approx(0.5, abs=0.01)


def test_automatic_values() -> None:
    assert options.batch_size("auto", 20) == 20
    assert options.batch_size("auto", 2000) == options.LARGEST_BATCH
    assert options.batch_size(7, 5) == 5
    x = torch.full((3, 2), 10.0)
    assert options.learning_rate("auto", "sgd", "bce", x) == pytest.approx(0.05 / 100)
    assert options.learning_rate("auto", "sgd", "mse", x / 100) == 0.02
    assert options.learning_rate("auto", "adam", "mse", x) == 0.001
    assert options.learning_rate(0.3, "sgd", "mse", x) == 0.3


def test_what_the_recipe_gets() -> None:
    params = SparseMLPClassifier(hidden_layer_sizes=(8, 4), rate=0.2, optimizer="adam").get_params()
    made = options.recipe(params, loss="mse", samples=30, lr=0.1, seed=5)
    assert (made.model, made.momentum, made.batch_size) == ("mlp:in-8-4-classes", 0.0, 30)
    assert (made.rate, made.evolve, made.seed) == ("constant:value=0.2", "set", 5)
    without = options.recipe({**params, "evolve": None, "rate": None}, loss="mse", samples=3, lr=0.1, seed=5)
    assert (without.rate, without.evolve) == (None, "none")
