"""The classifier: labels of every kind, probabilities, streams, several labels a sample."""

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_digits, load_iris, make_multilabel_classification
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import StandardScaler

from regraft import Topology
from regraft.errors import InputError
from regraft.estimators import SparseMLPClassifier

QUICK = {"max_iter": 15, "learning_rate": "cosine", "random_state": 0}


def digits() -> tuple[np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def test_learns_digits_at_a_tenth_of_the_connections() -> None:
    X, y = digits()
    model = SparseMLPClassifier(**QUICK).fit(X[:1200], y[:1200])
    assert model.score(X[1200:], y[1200:]) > 0.85
    assert model.density_ == pytest.approx(0.1)
    assert model.topology_.nnz == round(0.1 * (64 * 100 + 100 * 10))
    assert len(model.loss_curve_) == model.n_iter_ == 15
    assert model.loss_ == model.loss_curve_[-1] < model.loss_curve_[0]


def test_labels_come_back_as_they_were() -> None:
    X, y = load_iris(return_X_y=True, as_frame=True)
    words = np.array(["setosa", "versicolor", "virginica"], dtype=object)[y]
    model = SparseMLPClassifier(density=0.5, **QUICK).fit(X, words)
    assert model.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert model.feature_names_in_.tolist() == X.columns.tolist()
    found = model.predict(X)
    assert (found == words).mean() > 0.9
    proba = model.predict_proba(X)
    assert proba.shape == (150, 3)
    np.testing.assert_allclose(proba.sum(1), 1.0)
    assert (model.classes_[proba.argmax(1)] == found).all()
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), proba)


def test_the_module_computes_what_the_estimator_says() -> None:
    X, y = digits()
    model = SparseMLPClassifier(**QUICK).fit(X[:300], y[:300])
    assert not model.module_.training
    with torch.no_grad():
        logits = model.module_(torch.from_numpy(X[300:400]).float())
    np.testing.assert_allclose(
        torch.softmax(logits, 1).numpy(), model.predict_proba(X[300:400]), rtol=1e-4, atol=1e-6
    )
    assert model.topology_ == Topology.of(model.module_)


def test_many_rows_are_predicted_in_pieces(monkeypatch) -> None:
    X, y = digits()
    model = SparseMLPClassifier(**QUICK).fit(X[:300], y[:300])
    whole = model.predict_proba(X)
    monkeypatch.setattr("regraft.estimators.base.MOST_VALUES", 700)
    np.testing.assert_allclose(model.predict_proba(X), whole, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_array])
def test_scipy_sparse_samples_are_the_same_samples(kind) -> None:
    X, y = load_digits(return_X_y=True)
    X = X[:300] / 16
    dense = SparseMLPClassifier(**QUICK).fit(X, y[:300])
    other = SparseMLPClassifier(**QUICK).fit(kind(X), y[:300])
    np.testing.assert_array_equal(dense.predict_proba(X), other.predict_proba(kind(X)))


@pytest.mark.parametrize("as_sparse", [False, True])
def test_several_labels_a_sample(as_sparse: bool) -> None:
    X, y = make_multilabel_classification(400, 10, n_classes=4, random_state=0)
    X = StandardScaler().fit_transform(X)
    options = {**QUICK, "max_iter": 60}
    model = SparseMLPClassifier(density=0.3, **options).fit(X, sparse.csr_matrix(y) if as_sparse else y)
    found = model.predict(X)
    assert found.shape == y.shape
    assert (found == y).mean() > 0.8 > (y == 0).mean()
    proba = model.predict_proba(X)
    assert ((proba > 0.5) == found).all()
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), proba)
    with pytest.raises(InputError, match="one label a sample, which it was not before"):
        model.partial_fit(X, y[:, 0])
    with pytest.raises(InputError, match="y has 3 columns, but there are 4 classes"):
        model.partial_fit(X, y[:, :3])


def test_one_class_is_predicted() -> None:
    X = np.random.default_rng(0).normal(size=(10, 3))
    model = SparseMLPClassifier(density=0.5, **QUICK).fit(X, ["only"] * 10)
    assert set(model.predict(X)) == {"only"}
    np.testing.assert_array_equal(model.predict_proba(X), np.ones((10, 1)))


def test_a_stream_learns_and_keeps_its_counts() -> None:
    X, y = digits()
    model = SparseMLPClassifier(random_state=0)
    start = None
    for epoch in range(8):
        for i in range(0, 1200, 100):
            model.partial_fit(X[i : i + 100], y[i : i + 100], classes=range(10) if epoch == i == 0 else None)
            start = model.topology_ if start is None else start
    assert model.score(X[1200:], y[1200:]) > 0.85
    assert model.topology_.nnz == start.nnz
    assert model.topology_ != start  # 192 steps, so it changed once
    assert model.n_iter_ == len(model.loss_curve_) == 96


def test_a_stream_in_pieces_is_the_same_after_a_pickle() -> None:
    import pickle

    X, y = digits()
    one = SparseMLPClassifier(random_state=0, evolve="rigl")
    other = SparseMLPClassifier(random_state=0, evolve="rigl")
    for i in range(0, 1600, 100):
        one.partial_fit(X[i : i + 100], y[i : i + 100], classes=range(10))
        other.partial_fit(X[i : i + 100], y[i : i + 100], classes=range(10))
        other = pickle.loads(pickle.dumps(other))  # noqa: S301
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))


def test_a_stream_needs_its_classes_once() -> None:
    X, y = digits()
    model = SparseMLPClassifier(random_state=0)
    with pytest.raises(InputError, match="pass classes="):
        model.partial_fit(X, y)
    model.partial_fit(X[:50], y[:50] % 2, classes=[0, 1, 2])
    assert model.predict_proba(X).shape[1] == 3
    with pytest.raises(InputError, match=r"has the labels \[3, 4"):
        model.partial_fit(X, y)
    with pytest.raises(InputError, match="not the same as at the last call"):
        model.partial_fit(X, y, classes=range(10))


def test_a_failed_call_leaves_the_estimator_as_it_was() -> None:
    X, y = digits()
    model = SparseMLPClassifier(random_state=0).partial_fit(X[:100], y[:100], classes=range(10))
    before = model.predict_proba(X)
    model.set_params(learning_rate_init=1e30)
    model._stream = None  # so that the rate is taken
    with pytest.raises(InputError, match="training diverged"):
        model.partial_fit(X[:100] * 1e6, y[:100])
    np.testing.assert_array_equal(model.predict_proba(X), before)


def test_fit_after_a_stream_starts_anew_and_a_stream_after_fit_goes_on() -> None:
    X, y = digits()
    fresh = SparseMLPClassifier(**QUICK).fit(X[:600], y[:600])
    model = SparseMLPClassifier(**QUICK).partial_fit(X, y, classes=range(10)).fit(X[:600], y[:600])
    np.testing.assert_array_equal(fresh.predict_proba(X), model.predict_proba(X))
    before = model.score(X[:600], y[:600])
    assert model.partial_fit(X[:600], y[:600]).score(X[:600], y[:600]) > before - 0.05


def test_warm_start_goes_on_with_the_same_classes() -> None:
    X, y = digits()
    model = SparseMLPClassifier(**{**QUICK, "max_iter": 4}, warm_start=True).fit(X, y)
    first, losses = model.loss_, len(model.loss_curve_)
    model.fit(X, y)
    assert model.loss_ < first
    assert (losses, len(model.loss_curve_), model.n_iter_) == (4, 8, 4)
    with pytest.raises(InputError, match="not among the classes"):
        model.fit(X, y + 5)


def test_nothing_is_said_before_fitting() -> None:
    model = SparseMLPClassifier()
    for name in ("topology_", "density_", "feature_importances_"):
        with pytest.raises(NotFittedError):
            getattr(model, name)
        assert not hasattr(model, name)
    with pytest.raises(NotFittedError):
        model.predict(np.zeros((1, 3)))


def test_early_stopping_keeps_the_best_epoch() -> None:
    X, y = digits()
    X, y = X[:400], np.random.default_rng(0).permutation(y[:400])  # nothing to learn: soon it gets worse
    model = SparseMLPClassifier(
        early_stopping=True, validation_fraction=0.25, n_iter_no_change=3, random_state=0, density=0.3
    ).fit(X, y)
    assert model.n_iter_ < 100
    assert accuracy_score(y, model.predict(X)) < 0.9  # the best epoch is an early one
    with pytest.raises(InputError, match="partial_fit sees no validation samples"):
        model.partial_fit(X, y)
