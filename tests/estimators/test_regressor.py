"""The regressor: one target and several, in any unit."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.preprocessing import StandardScaler

from regraft.errors import InputError
from regraft.estimators import SparseMLPRegressor

QUICK = {"density": 0.2, "max_iter": 20, "learning_rate": "cosine", "random_state": 0}


def diabetes() -> tuple[np.ndarray, np.ndarray]:
    X, y = load_diabetes(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def test_learns_a_product() -> None:
    X = np.random.default_rng(0).normal(size=(1000, 5))
    y = X[:, 0] * X[:, 1] + X[:, 2]
    model = SparseMLPRegressor(density=0.3, max_iter=60, learning_rate="cosine", random_state=0)
    assert model.fit(X[:800], y[:800]).score(X[800:], y[800:]) > 0.9
    assert model.predict(X).shape == (1000,)


def test_units_of_the_target_do_not_matter() -> None:
    X, y = diabetes()
    plain = SparseMLPRegressor(**QUICK).fit(X, y)
    other = SparseMLPRegressor(**QUICK).fit(X, 1e6 * y - 3e7)
    np.testing.assert_allclose(other.predict(X), 1e6 * plain.predict(X) - 3e7, rtol=1e-3)
    assert plain.loss_curve_ == pytest.approx(other.loss_curve_, rel=1e-3)


def test_the_module_gives_out_targets() -> None:
    X, y = diabetes()
    model = SparseMLPRegressor(**QUICK).fit(X, y)
    with torch.no_grad():
        found = model.module_(torch.from_numpy(X).float()).squeeze(1).numpy()
    np.testing.assert_allclose(found, model.predict(X), rtol=1e-6)
    assert model.score(X, y) > 0.4


def test_several_targets() -> None:
    X, y = diabetes()
    both = np.stack([y, -2 * y + 5], 1)
    model = SparseMLPRegressor(**QUICK).fit(X, both)
    assert model.predict(X).shape == both.shape
    assert model.n_outputs_ == 2
    assert model.score(X, both) > 0.4


def test_a_constant_target_is_learned_exactly() -> None:
    X, y = diabetes()
    model = SparseMLPRegressor(**QUICK).fit(X, np.full_like(y, 7.0))
    np.testing.assert_allclose(model.predict(X), 7.0, atol=0.2)


def test_going_on_does_not_lose_what_was_learned() -> None:
    X, y = diabetes()
    model = SparseMLPRegressor(**QUICK, warm_start=True).fit(X, y)
    first = model.loss_curve_[0]
    model.fit(X, y)
    assert model.loss_curve_[20] < 0.8 * first
    before = model.score(X, y)
    for _ in range(3):
        model.partial_fit(X, y)
    assert model.score(X, y) > before - 0.1
    assert len(model.loss_curve_) == 43


def test_a_stream_learns() -> None:
    X, y = diabetes()
    model = SparseMLPRegressor(density=0.2, random_state=0)
    for _ in range(15):
        for i in range(0, 400, 100):
            model.partial_fit(X[i : i + 100], y[i : i + 100])
    assert model.score(X[:400], y[:400]) > 0.4


def test_early_stopping_without_labels() -> None:
    X, y = diabetes()
    model = SparseMLPRegressor(early_stopping=True, validation_fraction=0.2, random_state=0).fit(X, y)
    assert model.n_iter_ < 200
    assert model.score(X, y) > 0.4
    with pytest.raises(InputError, match=r"validation_fraction 0\.95 leaves none of 10 samples"):
        SparseMLPRegressor(early_stopping=True, validation_fraction=0.95).fit(X[:10], y[:10])
