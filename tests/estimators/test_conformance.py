"""scikit-learn's own checks, with no expected failures."""

import pytest
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from regraft.estimators import SparseMLPClassifier, SparseMLPRegressor

# smaller than by default, where all pass too, but training takes three times as long
SMALL = {"hidden_layer_sizes": (50,), "max_iter": 20}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks([SparseMLPClassifier(**SMALL), SparseMLPRegressor(**SMALL, n_networks=2)])
def test_checks_of_scikit_learn(estimator, check) -> None:
    check(estimator)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(SparseMLPClassifier, MLPClassifier), (SparseMLPRegressor, MLPRegressor)]
)
def test_no_check_is_left_out_but_those_of_weights_of_samples(ours, theirs) -> None:
    names = [
        {check.func.__name__ for _, check in estimator_checks_generator(made())} for made in (ours, theirs)
    ]
    assert names[0] >= {name for name in names[1] if "sample_weight" not in name}
