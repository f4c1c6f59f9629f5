"""The published files themselves, where REGRAFT_DATA names a folder that has them."""

from __future__ import annotations

import pytest

from regraft import data
from regraft.data import Data
from regraft.data.catalogue import SOURCES
from regraft.errors import FileError


def load(name: str, data_dir, **options) -> Data:
    try:
        return data.load(name, data_dir=data_dir, **options)
    except FileError as error:
        if " here: expected " not in str(error):
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("name", "mean", "std"), [("mnist", 0.1307, 0.3081), ("fashion-mnist", 0.2860, 0.3530)]
)
def test_idx_sets_have_the_published_statistics(data_dir, name, mean, std):
    made = load(name, data_dir)
    assert (len(made.train), len(made.test), made.input_shape) == (60_000, 10_000, (1, 28, 28))
    assert made.scaling is not None
    assert float(made.scaling.mean) / 255 == pytest.approx(mean, abs=5e-5)
    assert float(made.scaling.std) / 255 == pytest.approx(std, abs=5e-5)
    expected = (
        [6000] * 10
        if name == "fashion-mnist"
        else [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    )
    assert made.train.counts() == expected
    # a download is checked by these
    assert tuple(made.test.counts()) == SOURCES[name].test_counts


def test_thesis_1s_choice_of_fashion_mnist(data_dir):
    made = load("fashion-mnist", data_dir, classes=[0, 1, 2, 3, 4], per_class=1000, test_per_class=100)
    assert (made.train.counts(), made.test.counts()) == ([1000] * 5, [100] * 5)


@pytest.mark.parametrize(
    ("coarse", "classes", "name"), [(False, 100, "apple"), (True, 20, "aquatic_mammals")]
)
def test_the_subset_of_cifar100(data_dir, coarse, classes, name):
    made = load("cifar100-subset", data_dir, coarse=coarse)
    assert (made.input_shape, made.classes, made.class_names[0]) == ((3, 32, 32), classes, name)
    assert len(set(made.train.counts())) == len(set(made.test.counts())) == 1
    assert made.scaling is not None
    # the whole set's channel means; the subset is a quarter of it
    assert [round(float(m) / 255, 2) for m in made.scaling.mean.flatten()] == pytest.approx(
        [0.51, 0.49, 0.44], abs=0.011
    )


@pytest.mark.parametrize(
    ("name", "sizes", "shape", "counts"),
    [
        ("glioma", (33, 17), (4434,), [14, 7, 14, 15]),
        ("prostate-ge", (68, 34), (5966,), [50, 52]),
        ("orl", (266, 134), (1, 32, 32), [10] * 40),
        ("lung", (135, 68), (3312,), [139, 17, 21, 20, 6]),
    ],
)
def test_mat_sets(data_dir, name, sizes, shape, counts):
    made = load(name, data_dir)
    assert ((len(made.train), len(made.test)), made.input_shape) == (sizes, shape)
    both = [a + b for a, b in zip(made.train.counts(), made.test.counts(), strict=True)]
    assert sorted(both) == sorted(counts)
    assert all(c > 0 for c in made.test.counts())
