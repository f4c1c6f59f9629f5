"""What both have in common: scikit-learn's tools, seeds, pickles, merging, importances."""

import io
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import SelectFromModel
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import regraft
from regraft.errors import InputError
from regraft.estimators import SparseMLPClassifier, SparseMLPRegressor

QUICK = {"max_iter": 15, "learning_rate": "cosine", "random_state": 0}


def digits() -> tuple[np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    return StandardScaler().fit_transform(X)[:600], y[:600]


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("evolve", [None, "set", "rigl"])
def test_the_same_seed_is_the_same_network(evolve: str | None) -> None:
    X, y = digits()
    one, other, third = (
        SparseMLPClassifier(**{**QUICK, "random_state": seed}, evolve=evolve).fit(X, y) for seed in (3, 3, 4)
    )
    assert same(one.module_, other.module_)
    assert not same(one.module_, third.module_)
    drawn = SparseMLPClassifier(**{**QUICK, "random_state": np.random.RandomState(3)}, evolve=evolve)
    assert same(drawn.fit(X, y).module_, one.module_)


def test_global_random_numbers_are_left_alone() -> None:
    X, y = digits()
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    SparseMLPClassifier(**QUICK).fit(X, y)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


def test_grid_search_finds_the_same_with_any_number_of_jobs() -> None:
    frame, y = load_iris(return_X_y=True, as_frame=True)
    pipeline = make_pipeline(StandardScaler(), SparseMLPClassifier(**QUICK))
    grid = {"sparsemlpclassifier__density": [0.1, 0.4]}
    searches = [GridSearchCV(pipeline, grid, cv=2, n_jobs=jobs).fit(frame, y) for jobs in (1, 2)]
    one, two = searches
    np.testing.assert_array_equal(one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"])
    assert one.best_params_ == two.best_params_
    assert same(one.best_estimator_[-1].module_, two.best_estimator_[-1].module_)
    assert one.best_score_ > 0.85
    assert one.best_estimator_.predict(frame).shape == (150,)


def test_a_network_is_the_same_with_other_threads() -> None:
    X, y = digits()
    options = {**QUICK, "hidden_layer_sizes": (200, 100), "max_iter": 4}
    before = torch.get_num_threads()
    made = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            made.append(SparseMLPClassifier(**options).fit(X, y).module_)
    finally:
        torch.set_num_threads(before)
    assert same(*made)


def test_pickles_and_joblib_files_and_clones() -> None:
    X, y = digits()
    model = SparseMLPClassifier(**QUICK).fit(X, y)
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    for copy in (pickle.loads(pickle.dumps(model)), joblib.load(file)):  # noqa: S301
        np.testing.assert_array_equal(copy.predict_proba(X), model.predict_proba(X))
        assert copy.topology_ == model.topology_
    again = clone(model)
    assert not hasattr(again, "module_")
    assert again.get_params() == model.get_params()


def test_the_module_goes_through_a_file_of_regraft(tmp_path) -> None:
    X, y = digits()
    model = SparseMLPClassifier(**QUICK).fit(X, y)
    regraft.save(model.module_, tmp_path / "network.safetensors")
    loaded = regraft.load(tmp_path / "network.safetensors")
    assert same(loaded, model.module_)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_single_and_double_precision_give_the_same_network(dtype: type) -> None:
    X, y = digits()
    X = X.astype(np.float32)
    expected = SparseMLPClassifier(**QUICK).fit(X, y)
    assert same(SparseMLPClassifier(**QUICK).fit(X.astype(dtype), y).module_, expected.module_)


def test_several_networks_become_one_of_the_same_size_that_is_better_than_each() -> None:
    X, y = load_digits(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    train, test = slice(0, 1000), slice(1000, None)
    options = {**QUICK, "hidden_layer_sizes": (200,), "density": 0.1}
    alone = [
        SparseMLPClassifier(**{**options, "random_state": seed}).fit(X[train], y[train]) for seed in range(3)
    ]
    merged = SparseMLPClassifier(**options, n_networks=3).fit(X[train], y[train])
    assert merged.topology_.nnz == alone[0].topology_.nnz
    assert merged.module_.spec["sizes"] == [64, 200, 10]
    assert merged.score(X[test], y[test]) > np.mean([one.score(X[test], y[test]) for one in alone])
    again = SparseMLPClassifier(**options, n_networks=3).fit(X[train], y[train])
    assert same(merged.module_, again.module_)


def test_several_networks_of_numbers_are_merged_too() -> None:
    X, y = make_regression(400, 10, n_informative=5, noise=5.0, random_state=0)
    options = {**QUICK, "density": 0.3, "max_iter": 30}
    merged = SparseMLPRegressor(**options, n_networks=2).fit(X[:300], y[:300])
    assert merged.score(X[300:], y[300:]) > 0.8


def test_importances_point_at_the_features_that_matter() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(800, 20))
    y = 2 * X[:, 3] - 2 * X[:, 7]
    model = SparseMLPRegressor(density=0.3, max_iter=40, learning_rate="cosine", random_state=0).fit(X, y)
    shares = model.feature_importances_
    assert shares.shape == (20,)
    assert shares.min() >= 0
    assert shares.sum() == pytest.approx(1.0)
    assert sorted(shares.argsort()[-2:]) == [3, 7]
    kept = SelectFromModel(model, prefit=True, max_features=2, threshold=-np.inf)
    assert kept.get_support(indices=True).tolist() == [3, 7]


def test_importances_are_the_sums_over_paths() -> None:
    X, y = digits()
    model = SparseMLPClassifier(**QUICK, hidden_layer_sizes=(30, 20)).fit(X, y)
    weights = [
        layer.weight.dense().detach().double().abs() for layer in model.module_ if hasattr(layer, "weight")
    ]
    flow = torch.linalg.multi_dot(weights[::-1]).sum(0)
    np.testing.assert_allclose(model.feature_importances_, (flow / flow.sum()).numpy())
    unread = (X == 0).all(0)  # constant pixels
    assert model.feature_importances_[unread].mean() < model.feature_importances_.mean()


def test_frames_keep_their_names_and_types() -> None:
    X, y = digits()
    frame = pd.DataFrame(X, columns=[f"pixel {i}" for i in range(64)]).astype({"pixel 0": "int64"})
    model = SparseMLPClassifier(**QUICK).fit(frame, pd.Series(y, dtype="category"))
    assert model.feature_names_in_[1] == "pixel 1"
    assert cross_val_score(model, frame, y, cv=3).mean() > 0.65
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"pixel 0": "other"}))


def test_unfinished_training_is_told_and_a_schedule_that_ends_is_not() -> None:
    X, y = digits()
    with pytest.warns(ConvergenceWarning, match="reached max_iter"):
        SparseMLPClassifier(max_iter=2, random_state=0).fit(X, y)
    SparseMLPClassifier(max_iter=2, learning_rate="cosine", random_state=0).fit(X, y)


def test_training_stops_where_the_loss_does() -> None:
    X, y = digits()
    model = SparseMLPClassifier(random_state=0, tol=0.5, n_iter_no_change=2).fit(X, y)
    assert model.n_iter_ < 20


def test_training_that_diverges_begins_anew_unless_the_learning_rate_was_given() -> None:
    X, y = digits()
    X[0] *= 30  # one sample far away
    with pytest.warns(ConvergenceWarning, match="begins anew"):
        model = SparseMLPRegressor(**QUICK).fit(X, y)
    assert np.isfinite(model.predict(X)).all()
    with pytest.raises(InputError, match="diverged"):
        SparseMLPRegressor(**QUICK, learning_rate_init=0.5).fit(X, y)


def test_verbose_tells_each_epoch(capsys) -> None:
    X, y = digits()
    SparseMLPClassifier(max_iter=2, learning_rate="cosine", verbose=True, early_stopping=True).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1", "epoch 2"]
    assert "validation accuracy" in lines[0]
