from __future__ import annotations

import pytest
import torch

from regraft.data import Data, Scaling, Split
from regraft.errors import InputError


def split(n: int = 6, classes: int = 2) -> Split:
    return Split(torch.arange(4.0 * n).reshape(n, 1, 2, 2), torch.arange(n) % classes)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64), r"\(3, 2\) and labels of shape \(2,\)"),
        (torch.zeros(3, 2), torch.zeros(3, 1, dtype=torch.int64), "do not belong"),
        (torch.zeros(()), torch.zeros((), dtype=torch.int64), "do not belong"),
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), "is empty"),
        (torch.zeros(3, 0), torch.zeros(3, dtype=torch.int64), "is empty"),
        (torch.zeros(3, 2).double(), torch.zeros(3, dtype=torch.int64), "float32"),
        (torch.zeros(3, 2), torch.zeros(3), "int64"),
        (torch.tensor([[1.0], [float("nan")]]), torch.tensor([0, 1]), "NaN"),
        (torch.tensor([[1.0], [float("inf")]]), torch.tensor([0, 1]), "infinite"),
        (torch.zeros(2, 1), torch.tensor([0, -1]), "label -1"),
        (torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64, device="meta"), "one device"),
    ],
)
def test_a_split_refuses_what_training_cannot_use(x, y, words):
    with pytest.raises(InputError, match=words):
        Split(x, y)


def test_select_keeps_pairs_and_order():
    chosen = split().select(torch.tensor([4, 1]))
    assert chosen.y.tolist() == [0, 1]
    assert torch.equal(chosen.x, split().x[[4, 1]])


def test_split_off_takes_pairs_along(generator):
    whole = split(20, 4)
    rest, part = whole.split_off(0.25, generator)
    assert (len(rest), len(part), part.counts()) == (15, 5, part.counts())
    joined = torch.cat([rest.x, part.x])[:, 0, 0, 0] / 4
    assert sorted(joined.tolist()) == list(range(20))
    assert torch.cat([rest.y, part.y]).tolist() == (joined.long() % 4).tolist()


def test_a_torch_dataloader_takes_a_split():
    loader = torch.utils.data.DataLoader(split(), batch_size=4)  # type: ignore[arg-type]
    batches = list(loader)
    assert [tuple(x.shape) for x, _ in batches] == [(4, 1, 2, 2), (2, 1, 2, 2)]
    assert torch.equal(torch.cat([y for _, y in batches]), split().y)


def test_flatten_and_counts():
    assert split().flatten().x.shape == (6, 4)
    assert split().counts(4) == [3, 3, 0, 0]
    table = Split(torch.zeros(2, 3), torch.tensor([0, 1]))
    assert table.flatten() is table
    assert table.to("cpu") is table


def test_data_knows_its_shape_and_describes_itself():
    made = Data("toy", split(), split(2), ["a", "b"], validation=split(4))  # type: ignore[arg-type]
    assert (made.input_shape, made.features, made.classes, made.class_names) == ((1, 2, 2), 4, 2, ("a", "b"))
    figures = made.describe()
    assert figures["train"] == {"samples": 6, "per_class": [3, 3]}
    assert list(made.splits()) == ["train", "validation", "test"]
    assert figures["scaling"] is None


def test_data_refuses_splits_that_disagree():
    with pytest.raises(InputError, match=r"test samples of 'toy' have shape \(4,\)"):
        Data("toy", split(), split().flatten(), ("a", "b"))
    with pytest.raises(
        InputError, match="validation samples of 'toy' have the label 2, but there are 2 classes"
    ):
        Data("toy", split(), split(), ("a", "b"), validation=split(6, 3))


def test_flattened_data_scales_new_samples_alike():
    scaling = Scaling("channel", torch.tensor([[[1.0]], [[2.0]]]), torch.tensor([[[2.0]], [[4.0]]]))
    raw = torch.rand(5, 2, 3, 3)
    part = Split(scaling(raw), torch.zeros(5, dtype=torch.int64))
    made = Data("toy", part, part, ("a",), scaling=scaling).flatten()
    assert made.scaling is not None
    assert torch.equal(made.scaling(raw.flatten(1)), made.train.x)


def test_moving_moves_everything():
    part = Split(torch.zeros(2, 3), torch.tensor([0, 1]))
    made = Data("toy", part, part, ("a", "b"), validation=part)
    assert {s.device.type for s in made.to("cpu").splits().values()} == {"cpu"}
