"""The family of errors: catchable as one, each with a sentence that helps."""

import math

import pytest

from regraft import errors


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.InputError, ValueError),
        (errors.FileError, OSError),
        (errors.MismatchError, ValueError),
    ],
)
def test_family_is_caught_by_its_base_and_by_the_builtin(kind, builtin):
    assert issubclass(kind, errors.RegraftError)
    assert issubclass(kind, builtin)
    assert str(kind("one sentence")) == "one sentence"


def test_every_error_class_belongs_to_the_family():
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)]
    assert len(classes) >= 5
    assert all(issubclass(c, errors.RegraftError) for c in classes)


def test_missing_dependency_says_what_to_install():
    error = errors.MissingDependency("matplotlib", "report", "the heatmap")
    assert isinstance(error, ImportError)
    assert "matplotlib" in str(error)
    assert "pip install 'regraft[report]'" in str(error)


def test_unknown_suggests_the_nearest_and_lists_all_otherwise():
    near = errors.unknown("rate", "cosin", ["cosine", "constant"])
    assert isinstance(near, errors.InputError)
    assert str(near) == "unknown rate 'cosin': did you mean 'cosine'?"
    far = errors.unknown("rate", "xyz", ["cosine", "constant"])
    assert str(far) == "unknown rate 'xyz': known names: 'constant', 'cosine'"
    assert "None" in str(errors.unknown("rate", None, ["cosine"]))


@pytest.mark.parametrize("density", [1, 1.0, 0.05, 1e-12, "0.5"])
def test_densities_in_the_half_open_interval_pass(density):
    assert errors.check_density(density) == float(density)


@pytest.mark.parametrize("density", [0, 0.0, -0.1, 1.0000001, math.nan, math.inf, -math.inf, "x", None, []])
def test_other_densities_are_refused_by_value(density):
    with pytest.raises(errors.InputError, match=r"must be in \(0, 1\]") as caught:
        errors.check_density(density)
    assert repr(density) in str(caught.value)


def test_the_refusal_names_the_argument():
    with pytest.raises(errors.InputError, match=r"^head density is 2,"):
        errors.check_density(2, "head density")
