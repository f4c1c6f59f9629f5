"""Targets that are numbers: regression, and several labels a sample."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tests.train.toys import equal, state
from torch import Tensor, nn

from regraft import Evolve, kernels, losses, measure, models, sparsify
from regraft.data import Data, Split
from regraft.errors import InputError, MismatchError
from regraft.train import EarlyStopping, Recipe, ShowProgress, StopAfterAccuracy, fit, train_recipe


def numbers(n: int = 60, outputs: int = 2) -> Split:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, 6, generator=g)
    return Split(x, torch.stack([x[:, 0] * x[:, 1], x[:, 2]], 1)[:, :outputs].contiguous())


def data(outputs: int = 2) -> Data:
    split = numbers(outputs=outputs)
    first, second = split.select(torch.arange(50)), split.select(torch.arange(50, 60))
    return Data("numbers", first, second, tuple(map(str, range(outputs))), validation=second)


def network() -> nn.Module:
    g = torch.Generator().manual_seed(1)
    return sparsify(models.build("mlp:6-20-2", generator=g), density=0.3, generator=g)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def test_regression_falls_and_says_no_accuracy() -> None:
    model = network()
    optimizer = sgd(model)
    evolver = Evolve(every=5, total=60, generator=torch.Generator().manual_seed(0)).attach(model, optimizer)
    history = fit(
        model, data(), epochs=15, optimizer=optimizer, loss="mse", batch_size=10, evolver=evolver,
        callbacks=[EarlyStopping(15)],
    )  # fmt: skip
    assert history.final["train_loss"] < 0.8 * history.epochs[0]["train_loss"]
    assert not [name for name in history.final if "accuracy" in name]
    x, y = data().test.x, data().test.y
    expected = F.mse_loss(model(x), y).item()
    assert history.final["validation_loss"] == pytest.approx(expected, rel=1e-5)


def test_compiled_steps_of_numbers_are_the_ordinary_ones() -> None:
    one, other = network(), network()
    first = fit(one, data(), epochs=2, optimizer=sgd(one), loss="mse", batch_size=10)
    with kernels.use("materialised"):
        second = fit(other, data(), epochs=2, optimizer=sgd(other), loss="mse", batch_size=10)
    assert second.step != "fused"
    assert first.column("train_loss") == pytest.approx(second.column("train_loss"), rel=1e-4)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_several_labels_a_sample() -> None:
    source = data()
    many = {name: Split(s.x, (s.y > 0).float()) for name, s in source.splits().items()}
    history = fit(
        model := network(),
        replace(source, **many),
        epochs=20,
        optimizer=sgd(model),
        loss="bce",
        batch_size=10,
    )
    assert history.final["train_loss"] < 0.8 * history.epochs[0]["train_loss"]


def test_a_recipe_takes_numbers_and_repeats_itself() -> None:
    recipe = Recipe("mlp:in-16-classes", density=0.3, loss="mse", epochs=2, batch_size=10)
    first, second = (train_recipe(recipe, data()) for _ in range(2))
    assert equal(state(first.model), state(second.model))
    assert first.model(data().test.x).shape == (10, 2)


def test_bce_of_numbers_is_that_of_labels() -> None:
    output, y = torch.randn(7, 4), torch.randint(4, (7,))
    torch.testing.assert_close(losses.bce(output, F.one_hot(y, 4).float()), losses.bce(output, y))
    with pytest.raises(MismatchError, match=r"\(7, 4\), but the target \(7, 3\)"):
        losses.bce(output, torch.zeros(7, 3))


def test_evaluation_refuses_another_number_of_outputs() -> None:
    with pytest.raises(MismatchError, match="has 2 outputs, but the targets have shape"):
        measure.evaluate(network(), numbers(outputs=1), loss="mse")
    with pytest.raises(MismatchError, match="has 2 outputs, but the targets have shape"):
        fit(model := network(), data(1), epochs=1, optimizer=sgd(model), loss="mse")


def test_what_needs_labels_says_so() -> None:
    split = numbers()
    with pytest.raises(InputError, match="counts labels"):
        split.counts()
    with pytest.raises(InputError, match="divides each class"):
        split.split_off(0.5, torch.Generator())
    with pytest.raises(InputError, match="the targets are numbers: use EarlyStopping"):
        fit(
            model := network(), data(), epochs=1, optimizer=sgd(model), loss="mse",
            callbacks=[StopAfterAccuracy()],
        )  # fmt: skip


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.zeros(3), r"expected \[n, ...\] and \[n, outputs\]"),
        (torch.zeros(2, 1), r"expected \[n, ...\] and \[n, outputs\]"),
        (torch.zeros(3, 0), "is empty"),
        (torch.zeros(3, 1, dtype=torch.float64), "convert them"),
        (torch.tensor([[0.0], [1.0], [float("inf")]]), "NaN or infinite numbers"),
    ],
)
def test_splits_refuse_other_numbers(y: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Split(torch.zeros(3, 2), y)


def test_sets_refuse_parts_that_disagree() -> None:
    split = numbers()
    labels = Split(split.x, torch.zeros(60, dtype=torch.int64))
    with pytest.raises(InputError, match="expected labels in all parts, or numbers in all"):
        Data("toy", split, labels, ("a", "b"))
    with pytest.raises(InputError, match="have 2 numbers each, but there are 1 names"):
        Data("toy", split, split, ("a",))
    assert Data("toy", split, split, ("a", "b")).describe()["train"] == {"samples": 60}


def test_progress_shows_the_loss_of_numbers() -> None:
    notes: list[str] = []
    fit(
        model := network(), data(), epochs=1, optimizer=sgd(model), loss="mse", batch_size=50,
        callbacks=[ShowProgress(lambda steps, note: notes.append(note))],
    )  # fmt: skip
    assert notes[-1].startswith("epoch 1/1, test loss ")
