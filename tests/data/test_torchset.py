from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from regraft import data
from regraft.data import Split
from regraft.errors import InputError

X, Y = torch.rand(12, 3), torch.arange(12) % 3


class Pairs(Dataset):  # type: ignore[type-arg]
    """Map-style; like many, it never raises IndexError."""

    def __init__(self, samples, labels) -> None:
        self.samples, self.labels = samples, labels

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i):
        return self.samples[i % len(self.samples)], self.labels[i % len(self.samples)]


class Stream(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


@pytest.mark.parametrize(
    "dataset",
    [
        TensorDataset(X, Y), Split(X, Y), Stream(), Subset(TensorDataset(X, Y), range(12)), Pairs(X, Y),
        Pairs(X.numpy(), Y.tolist()), Pairs(X.tolist(), Y.numpy()), list(zip(X, Y, strict=True)),
        Pairs(X.double(), Y[:, None]), TensorDataset(X, Y.to(torch.uint8)), TensorDataset(X, Y.float()),
    ],
    ids=lambda d: type(d).__name__,
)  # fmt: skip
def test_every_kind_of_dataset_is_held_as_one_tensor(dataset):
    made = data.from_dataset(dataset, dataset)
    assert torch.equal(made.train.x, X)
    assert torch.equal(made.test.y, Y)
    assert (made.train.x.dtype, made.train.y.dtype, made.classes) == (torch.float32, torch.int64, 3)
    assert made.class_names == ("0", "1", "2")


def test_without_a_test_set_a_quarter_is_taken_off():
    made = data.from_dataset(TensorDataset(X, Y))
    assert (made.train.counts(), made.test.counts()) == ([3, 3, 3], [1, 1, 1])


def test_names_come_from_the_argument_or_the_dataset():
    held = Pairs(X, Y)
    held.classes = ["a", "b", "c", "d"]  # as torchvision's datasets have it
    assert data.from_dataset(held, held).class_names == ("a", "b", "c", "d")
    assert data.from_dataset(held, held, class_names=["x", "y", "z"], name="mine").name == "mine"


def test_options_work_as_for_named_sets():
    made = data.from_dataset(
        TensorDataset(X, Y),
        TensorDataset(X, Y),
        classes=[2, 0],
        per_class=3,
        test_per_class=2,
        standardise=True,
    )
    assert (made.train.counts(), made.test.counts(), made.class_names) == ([3, 3], [2, 2], ("2", "0"))
    assert float(made.train.x.mean(0).abs().max()) < 1e-6


def test_a_class_only_the_test_set_has_is_counted():
    made = data.from_dataset(TensorDataset(X, Y), TensorDataset(X, Y + 1))
    assert made.classes == 4


def test_images_of_bytes_know_their_range():
    x = torch.randint(0, 256, (8, 3, 4, 4), dtype=torch.uint8)
    made = data.from_dataset(TensorDataset(x, torch.arange(8) % 2), test_fraction=0.5, standardise="pixel")
    assert float(made.train.x.max()) <= 1.0
    with pytest.raises(InputError, match="no known range"):
        data.from_dataset(
            TensorDataset(x.float(), torch.arange(8) % 2), test_fraction=0.5, standardise="pixel"
        )


def test_pillow_images_get_channels_first():
    image = pytest.importorskip("PIL.Image")
    rgb = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    made = data.from_dataset(Pairs([image.fromarray(rgb)] * 4, [0, 1] * 2), test_fraction=0.5)
    assert torch.equal(made.train.x[0], torch.from_numpy(rgb.transpose(2, 0, 1)).float())
    grey = data.from_dataset(Pairs([image.fromarray(rgb[..., 0])] * 4, [0, 1] * 2), test_fraction=0.5)
    assert grey.input_shape == (1, 6, 5)


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (TensorDataset(X, -Y), "label -2, but expected 0 to"),
        (TensorDataset(torch.full((12, 3), float("nan")), Y), r"'dataset \(train\)' has NaN"),
        (TensorDataset(X, torch.rand(12)), "not whole numbers"),
        (TensorDataset(X[:0], Y[:0]), "is empty"),
        (TensorDataset(X, Y, Y), "pair"),
        ([], "is empty"),
        (Pairs([{"x": 1}], [0]), "object"),
        ([torch.zeros(3)], "expected a pair"),
        (Pairs([torch.zeros(2), torch.zeros(3)], [0, 1]), r"sample 1 .* shape \(3,\), sample 0 has \(2,\)"),
        (Pairs([torch.zeros(2)] * 2, [torch.eye(2)] * 2), r"label 0 .* shape \(2, 2\)"),
        (Pairs([torch.zeros(2)] * 2, ["cat", "dog"]), "expected one whole number"),
        (TensorDataset(X * 1j, Y), "real numbers"),
        (TensorDataset(X.double() * 1e300, Y), "too large|infinite"),
        (5, "expected a torch Dataset"),
    ],
)
def test_datasets_that_cannot_be_used(dataset, words):
    with pytest.raises(InputError, match=words) as caught:
        data.from_dataset(dataset, standardise=False)
    assert "\n" not in str(caught.value)


def test_shapes_of_train_and_test_must_agree():
    with pytest.raises(InputError, match="do not belong together"):
        data.from_dataset(TensorDataset(X, Y), TensorDataset(X[:, :2], Y))


def test_labels_beyond_the_names():
    with pytest.raises(InputError, match="label 2, but expected 0 to 1"):
        data.from_dataset(TensorDataset(X, Y), class_names=["a", "b"])
