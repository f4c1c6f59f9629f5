"""Distillation: the formula, its limits, and a training that follows it sample by sample."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from tests.train.test_checkpoints import Crash, CrashAt
from tests.train.toys import Everything, equal, state, toy_data, without_times
from torch import Tensor, nn

from regraft import losses, models, sparsify
from regraft.data import Data, Loader, Split
from regraft.errors import InputError, MismatchError
from regraft.train import Checkpoint, History, Recipe, Teachers, checkpoints, fit, seeds, train_recipe
from regraft.train.distill import Distilled


def network(seed: int, sizes: str = "8-12-4") -> nn.Module:
    return models.build(f"mlp:{sizes}", generator=torch.Generator().manual_seed(seed))


def samples(n: int = 6, classes: int = 4) -> tuple[Split, Tensor]:
    """A split whose samples are their own logits under ``nn.Identity``, and a student's logits."""
    g = torch.Generator().manual_seed(0)
    split = Split(torch.randn(n, classes, generator=g), torch.arange(n) % classes)
    return split, torch.randn(n, classes, generator=g)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_is_the_formula(weight: float, temperature: float) -> None:
    """Hinton's form: the cross-entropy with the soft targets, less their entropy."""
    split, student = samples()
    teachers = Teachers([nn.Identity(), nn.Sequential(nn.Identity(), nn.ReLU())], weight, temperature)
    t, z = (split.x + split.x.relu()).double().numpy() / 2, student.double().numpy()
    targets = softmax(t / temperature, axis=1)
    soft = (targets * (np.log(targets) - log_softmax(z / temperature, axis=1))).sum(1).mean()
    hard = -log_softmax(z, axis=1)[np.arange(6), split.y.numpy()].mean()
    wanted = (1 - weight) * hard + weight * temperature**2 * soft
    objective = teachers.objective(split, losses.by_name("cross-entropy"))
    assert float(objective(student, torch.arange(6))) == pytest.approx(wanted, rel=1e-5)


def test_samples_are_told_by_their_numbers() -> None:
    split, student = samples()
    objective = Teachers([nn.Identity()]).objective(split, losses.by_name("cross-entropy"))
    order = torch.tensor([4, 0, 2])
    alone = [float(objective(student[[i]], order[[i]])) for i in range(3)]
    assert float(objective(student[:3], order)) == pytest.approx(sum(alone) / 3, rel=1e-5)


def test_a_student_that_agrees_with_its_teachers_has_nothing_to_learn() -> None:
    split, _ = samples()
    objective = Teachers([nn.Identity()], weight=1.0).objective(split, losses.by_name("cross-entropy"))
    student = (split.x + 3.0).requires_grad_()
    value = objective(student, torch.arange(6))
    (slope,) = torch.autograd.grad(value, student)
    assert float(value.detach()) == pytest.approx(0.0, abs=1e-6)
    torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-6)


def test_at_a_high_temperature_logits_are_matched() -> None:
    """Hinton et al. 2015, section 2.1: the gradient becomes (z - t) / classes, of centred logits."""
    split, student = samples()
    split, student = Split(split.x, split.y), student.double().requires_grad_()
    objective = Teachers([nn.Identity()], 1.0, 1e3).objective(split, losses.by_name("cross-entropy"))
    (slope,) = torch.autograd.grad(objective(student, torch.arange(6)), student)
    centred = [x.detach() - x.detach().mean(1, keepdim=True) for x in (student, split.x.double())]
    torch.testing.assert_close(slope, (centred[0] - centred[1]) / 4 / 6, rtol=1e-2, atol=1e-4)


def trained(data: Data, teachers: Teachers | None, **options: object) -> tuple[nn.Module, History]:
    model = network(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    history = fit(
        model, data, epochs=2, optimizer=optimizer, batch_size=8, seed=3, teachers=teachers, **options
    )
    return model, history


def test_training_follows_the_teachers_sample_by_sample(data: Data) -> None:
    """Against a loop that asks the teachers at each batch."""
    teachers = [network(5), network(6)]
    found, history = trained(data, Teachers(teachers, 0.7, 3.0))
    model = network(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = Loader(data.train, 8, generator=seeds.stream(3, "order"))
    for _ in range(2):
        for x, y in loader:
            with torch.no_grad():
                t = sum(teacher(x) for teacher in teachers) / 2
            optimizer.zero_grad()
            loss = Distilled(losses.by_name("cross-entropy"), y, t, 0.7, 3.0)
            loss(model(x), torch.arange(len(y))).backward()
            optimizer.step()
    for a, b in zip(found.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert history.step == "ordinary: the fused step knows labels only, and teachers' logits enter the loss"


def test_without_weight_teachers_change_nothing(data: Data) -> None:
    alone, history = trained(data, None)
    taught, same = trained(data, Teachers([network(5)], weight=0.0))
    assert equal(state(alone), state(taught))
    assert [r["test_loss"] for r in history.epochs] == [r["test_loss"] for r in same.epochs]


def test_the_test_loss_is_that_of_the_labels(data: Data) -> None:
    from regraft import measure

    model, history = trained(data, Teachers([network(5)], weight=1.0))
    assert history.final["test_loss"] == pytest.approx(measure.evaluate(model, data.test)["loss"])
    assert history.final["train_loss"] != pytest.approx(measure.evaluate(model, data.train)["loss"], rel=1e-2)


def test_teachers_are_left_as_they_were(data: Data) -> None:
    teacher = nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4)).train()
    teacher[1].eval()
    before, modes = copy.deepcopy(teacher.state_dict()), [m.training for m in teacher.modules()]
    trained(data, Teachers([teacher]))
    assert equal(before, state(teacher))
    assert [m.training for m in teacher.modules()] == modes
    assert all(p.grad is None for p in teacher.parameters())


def test_a_sparse_network_learns_while_its_topology_evolves(data: Data) -> None:
    model = sparsify(network(0), 0.4, generator=torch.Generator().manual_seed(0))
    teacher, _ = trained(data, None)
    recipe = Recipe(epochs=6, batch_size=8, lr=0.1, rate="exd")
    done = train_recipe(recipe, data, model=model, teachers=Teachers([teacher], 0.9))
    assert done.history.final["test_accuracy"] > 0.6
    assert sum(done.history.column("dropped")) > 0


@pytest.mark.parametrize("step", [2, 7, 13])
def test_a_training_with_teachers_resumes_to_the_same_bits(step: int, tmp_path: Path) -> None:
    def teachers() -> Teachers:
        return Teachers([network(5), network(6)], 0.5, 2.0)

    whole = Everything()
    expected = whole.fit(teachers=teachers())
    with pytest.raises(Crash):
        Everything().fit(Checkpoint(tmp_path, every_steps=1), CrashAt(step), teachers=teachers())
    again = Everything()
    history = again.fit(resume=checkpoints.find(tmp_path), teachers=teachers())
    assert equal(state(whole.model), state(again.model))
    assert without_times(history) == without_times(expected)
    other = Teachers([network(5), network(7)], 0.5, 2.0)
    for wrong in (None, other, Teachers([network(5), network(6)], 0.4, 2.0)):
        with pytest.raises(MismatchError, match="was made with teachers"):
            Everything().fit(resume=checkpoints.find(tmp_path), teachers=wrong)


def diverged() -> nn.Module:
    model = network(5)
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    return model


def test_refuses(data: Data) -> None:
    with pytest.raises(InputError, match=r"Teachers\(\[a, b\]\)"):
        Teachers([])
    with pytest.raises(InputError, match=r"Teachers\(\[a, b\]\)"):
        Teachers(network(0))  # type: ignore[arg-type]
    for weight in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match=r"the teachers' weight is .*, but must be in \[0, 1\]"):
            Teachers([network(0)], weight)
    for temperature in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match=r"the temperature is .*, but must be above 0"):
            Teachers([network(0)], 0.5, temperature)
    with pytest.raises(InputError, match="teacher 2 gives NaN or infinite logits"):
        trained(data, Teachers([network(5), diverged()]))
    with pytest.raises(MismatchError, match="teacher 2 has 5 outputs, but those before it 4"):
        trained(data, Teachers([network(5), network(5, "8-5")]))
    with pytest.raises(MismatchError, match="the student has 4 outputs, but its teachers have 6"):
        trained(data, Teachers([network(5, "8-6")]))
    with pytest.raises(MismatchError, match=r"does not take samples of shape \(8,\)"):
        trained(data, Teachers([network(5, "9-4")]))
    for loss in ("mse", "bce"):
        with pytest.raises(InputError, match="teachers' logits are compared through a softmax"):
            trained(data, Teachers([network(5)]), loss=loss)


def test_the_toy_data_is_not_in_order() -> None:
    """Otherwise a mistake in the numbers of the samples would not show."""
    assert toy_data().train.y[:20].diff().count_nonzero() > 5
