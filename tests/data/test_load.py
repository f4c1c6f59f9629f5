from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import datasets

from regraft import data
from regraft.errors import InputError

EMBEDDED = {
    "digits": (1347, 450, (1, 8, 8), 10),
    "breast-cancer": (426, 143, (30,), 2),
    "iris": (112, 38, (4,), 3),
    "wine": (133, 45, (13,), 3),
}


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_sets(name):
    train, test, shape, classes = EMBEDDED[name]
    made = data.load(name, standardise=False)
    assert (len(made.train), len(made.test), made.input_shape, made.classes) == (train, test, shape, classes)
    held = getattr(datasets, f"load_{name.replace('-', '_')}")()
    assert made.class_names == tuple(str(n) for n in held.target_names)
    ours = np.concatenate([s.flatten().x.numpy() for s in (made.train, made.test)])
    labels = np.concatenate([s.y.numpy() for s in (made.train, made.test)])
    theirs = held.data.astype(np.float32)
    rows = {(row.tobytes(), int(label)) for row, label in zip(theirs, held.target, strict=True)}
    assert {(row.tobytes(), int(label)) for row, label in zip(ours, labels, strict=True)} == rows
    assert np.bincount(labels).tolist() == np.bincount(held.target).tolist()


def test_digits_is_the_default_and_its_images_are_upright():
    made = data.load(standardise=False)
    assert made.name == "digits"
    held = datasets.load_digits()
    first = torch.from_numpy(held.images[0]).float()
    assert any(torch.equal(x[0], first) for s in (made.train, made.test) for x in s.x[s.y == 0])


def test_names_are_sorted_and_all_can_be_asked_for():
    names = data.names()
    assert names == sorted(names)
    assert set(EMBEDDED) | {
        "mnist",
        "fashion-mnist",
        "cifar-10",
        "cifar-100",
        "orl",
        "lung",
        "glioma",
        "prostate-ge",
    } <= set(names)


@pytest.mark.parametrize(
    ("name", "near"), [("fashon-mnist", "fashion-mnist"), ("digit", "digits"), ("mnits", "mnist")]
)
def test_unknown_names_suggest_the_nearest(name, near):
    with pytest.raises(InputError, match=f"unknown data set '{name}': did you mean .*'{near}'"):
        data.load(name)


@pytest.mark.parametrize("spelt", ["Breast_Cancer", "breast cancer", "BREASTCANCER"])
def test_spelling_of_names_is_forgiven(spelt):
    assert data.load(spelt).name == "breast-cancer"


def test_where_data_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("REGRAFT_DATA", str(tmp_path))
    assert data.data_dir() == tmp_path
    assert data.data_dir("~/x") == Path("~/x").expanduser()
    monkeypatch.delenv("REGRAFT_DATA")
    assert data.data_dir() == Path("~/.cache/regraft").expanduser()
    monkeypatch.setenv("REGRAFT_DATA", "")
    assert data.data_dir() == Path("~/.cache/regraft").expanduser()


def test_the_variable_is_where_files_are_found(monkeypatch, tmp_path, write_idx):
    write_idx(tmp_path / "mnist")
    monkeypatch.setenv("REGRAFT_DATA", str(tmp_path))
    assert len(data.load("mnist").train) == 40


# --- standardisation -------------------------------------------------------------------------------


def test_tables_are_standardised_as_scikit_learn_does_it():
    from sklearn.preprocessing import StandardScaler

    raw, made = data.load("wine", standardise=False), data.load("wine")
    scaler = StandardScaler().fit(raw.train.x.double().numpy())
    for ours, theirs in ((made.train, raw.train), (made.test, raw.test)):
        expected = scaler.transform(theirs.x.double().numpy())
        np.testing.assert_allclose(ours.x.numpy(), expected, rtol=0, atol=2e-6)


def test_images_are_standardised_per_channel(tmp_path, write_cifar100):
    write_cifar100(tmp_path / "cifar-100-python")
    raw = data.load("cifar-100", data_dir=tmp_path, standardise=False)
    made = data.load("cifar-100", data_dir=tmp_path)
    mean = raw.train.x.double().mean(dim=(0, 2, 3), keepdim=True)
    std = raw.train.x.double().std(dim=(0, 2, 3), keepdim=True, unbiased=False)
    for ours, theirs in ((made.train, raw.train), (made.test, raw.test)):
        torch.testing.assert_close(ours.x, ((theirs.x.double() - mean) / std).float(), rtol=0, atol=2e-6)
    assert made.scaling is not None
    torch.testing.assert_close(made.scaling(raw.test.x), made.test.x, rtol=0, atol=2e-6)


def test_the_test_split_never_touches_the_statistics(tmp_path, write_idx):
    folder = write_idx(tmp_path / "mnist")
    first = data.load("mnist", data_dir=tmp_path)
    path = folder / "t10k-images-idx3-ubyte.gz"
    other = data.load("mnist", data_dir=tmp_path)
    from regraft.data.idx import idx_bytes

    path.write_bytes(idx_bytes(np.full((20, 5, 4), 255, np.uint8)))
    other = data.load("mnist", data_dir=tmp_path)
    assert torch.equal(first.train.x, other.train.x)
    assert (
        float(other.test.x.min())
        == float(other.test.x.max())
        == pytest.approx((255 - float(first.scaling.mean)) / float(first.scaling.std), rel=1e-6)
    )


def test_statistics_are_of_the_samples_that_are_left_for_training():
    made = data.load("wine", classes=[2, 0], per_class=20, validation=0.25)
    x = made.train.x.double()
    assert made.validation is not None
    assert (len(made.train), len(made.validation)) == (30, 10)
    torch.testing.assert_close(x.mean(0), torch.zeros(13).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(x.std(0, unbiased=False), torch.ones(13).double(), atol=1e-6, rtol=0)


def test_constant_features_become_zero_and_stay_finite():
    from torch.utils.data import TensorDataset

    x = torch.rand(40, 3)
    x[:, 1] = 0.1
    y = torch.arange(40) % 2
    test = x.clone()
    test[:, 1] = 0.7
    made = data.from_dataset(TensorDataset(x, y), TensorDataset(test, y), standardise=True)
    assert made.train.x[:, 1].abs().max() < 1e-7
    torch.testing.assert_close(made.test.x[:, 1], torch.full((40,), 0.6), atol=1e-6, rtol=0)


def test_large_offsets_do_not_lose_the_signal(tmp_path):
    from torch.utils.data import TensorDataset

    x = 1e9 + torch.arange(40).double().reshape(40, 1)
    made = data.from_dataset(TensorDataset(x, torch.arange(40) % 2), test_fraction=0.5, standardise=True)
    assert len(made.train.x.unique()) == 20
    assert float(made.train.x.std(unbiased=False)) == pytest.approx(1.0, abs=1e-5)


def test_pixel_scale_is_0_to_1():
    made = data.load("digits", standardise="pixel")
    assert (float(made.train.x.min()), float(made.train.x.max())) == (0.0, 1.0)
    assert made.describe()["scaling"] == {"kind": "pixel", "mean": [0.0], "std": [16.0]}


def test_feature_scale_standardises_each_pixel_and_leaves_blank_ones():
    made = data.load("digits", standardise="feature")
    mean, std = made.train.x.mean(0), made.train.x.std(0, unbiased=False)
    assert float(mean.abs().max()) < 1e-6
    blank = std == 0
    assert 0 < int(blank.sum()) < 10
    assert torch.allclose(std[~blank], torch.ones(()), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("wine", "pixel", "is a table"),
        ("wine", "channel", "is a table"),
        ("digits", "chanel", "did you mean 'channel'"),
    ],
)
def test_kinds_that_do_not_fit(name, kind, words):
    with pytest.raises(InputError, match=words):
        data.load(name, standardise=kind)


# --- choosing --------------------------------------------------------------------------------------


def test_thesis_1s_choice(tmp_path, write_idx):
    write_idx(tmp_path / "fashion-mnist", train=200, test=100)
    made = data.load(
        "fashion-mnist", data_dir=tmp_path, classes=[0, 1, 2, 3, 4], per_class=10, test_per_class=4
    )
    assert (made.train.counts(), made.test.counts()) == ([10] * 5, [4] * 5)
    assert made.class_names == ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat")


def test_classes_are_renumbered_in_the_order_given():
    whole = data.load("iris", standardise=False)
    made = data.load("iris", classes=["virginica", 0], standardise=False)
    assert made.class_names == ("virginica", "setosa")
    for part in ("train", "test"):
        theirs, ours = whole.splits()[part], made.splits()[part]
        kept = theirs.y != 1
        assert torch.equal(ours.x, theirs.x[kept])
        assert ours.y.tolist() == [0 if v == 2 else 1 for v in theirs.y[kept].tolist()]


def test_which_samples_depends_on_seed_and_class_alone():
    def of(label: int, **options) -> set[bytes]:
        made = data.load("digits", standardise=False, **options)
        place = made.class_names.index(str(label))
        return {x.numpy().tobytes() for x in made.train.x[made.train.y == place]}

    alone = of(3, classes=[3, 8], per_class=20)
    assert len(alone) == 20
    assert alone == of(3, per_class=20) == of(3, classes=[8, 3, 5], per_class=20, test_per_class=7)
    assert alone < of(3, per_class=40)
    assert alone != of(3, per_class=20, seed=1)


def test_the_same_arguments_give_the_same_data_whatever_came_before():
    options = {"classes": [1, 2, 9], "per_class": 30, "test_per_class": 10, "validation": 0.2, "seed": 7}
    first = data.load("digits", **options)
    torch.manual_seed(3)
    np.random.seed(4)  # noqa: NPY002
    data.load("digits", seed=8, validation=0.3)
    again = data.load("digits", **options)
    for part, split in first.splits().items():
        assert torch.equal(split.x, again.splits()[part].x)
        assert torch.equal(split.y, again.splits()[part].y)


def test_loading_leaves_the_global_generators_alone():
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    data.load("digits", per_class=10, validation=0.2)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def test_flatten_gives_vectors():
    image, flat = data.load("digits"), data.load("digits", flatten=True)
    assert flat.input_shape == (64,)
    assert torch.equal(flat.train.x, image.train.x.flatten(1))


def test_validation_is_stratified_and_apart():
    made = data.load("digits", validation=0.1, standardise=False)
    assert made.validation is not None
    assert len(made.validation) == 135
    assert len(made.train) + len(made.validation) == 1347
    assert max(made.validation.counts()) - min(made.validation.counts()) <= 1
    assert torch.equal(made.test.x, data.load("digits", standardise=False).test.x)


def test_device():
    assert data.load("iris", device="cpu").train.device.type == "cpu"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classes": []}, "classes is empty"),
        ({"classes": [0, 10]}, "class 10 is not one of 'digits': expected 0 to 9"),
        ({"classes": [-1]}, "class -1"),
        ({"classes": [1.5]}, "class 1.5"),
        ({"classes": [True]}, "class True"),
        ({"classes": [1, "1"]}, "listed twice"),
        ({"classes": ["eleven"]}, "unknown class of 'digits' 'eleven'"),
        ({"classes": "01"}, "must be a list"),
        ({"per_class": 0}, "per_class is 0"),
        ({"per_class": 2.5}, "per_class is 2.5"),
        ({"test_per_class": -3}, "test_per_class is -3"),
        ({"per_class": 500}, r"class '\d' of 'digits' has \d+ training samples, fewer than the 500"),
        ({"test_per_class": 500}, "test samples, fewer than the 500"),
        ({"test_fraction": 1.0}, "test_fraction is 1.0"),
        ({"validation": -0.1}, "validation is -0.1"),
        ({"seed": 0.5}, "seed is 0.5"),
    ],
)
def test_options_that_cannot_be_meant(options, words):
    with pytest.raises(InputError, match=words):
        data.load("digits", **options)


def test_sets_with_their_own_test_set_refuse_a_fraction(tmp_path, write_idx):
    write_idx(tmp_path / "mnist")
    with pytest.raises(InputError, match="has a test set of its own"):
        data.load("mnist", data_dir=tmp_path, test_fraction=0.5)
