"""Optimizers and schedules by name."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from regraft.errors import InputError
from regraft.schedules import Constant, Oscillating
from regraft.train import OPTIMIZERS, SCHEDULES, optimizer_by_name, rate_by_name, schedule_by_name
from regraft.train.optimizers import parse_options


def sgd(lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.9)


def rates(text: str, epochs: int, lr: float = 1.0) -> list[float]:
    optimizer = sgd(lr)
    schedule = schedule_by_name(text, optimizer, epochs)
    found = []
    for _ in range(epochs + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_trains(name: str) -> None:
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    optimizer = optimizer_by_name(name, layer.parameters(), lr=0.1, weight_decay=0.01)
    layer(torch.ones(4, 3)).square().sum().backward()
    optimizer.step()
    assert type(optimizer).__name__.lower() == name
    assert not torch.equal(before, layer.weight)


def test_frozen_parameters_are_left_out() -> None:
    layer = nn.Linear(3, 2)
    layer.weight.requires_grad_(False)
    optimizer = optimizer_by_name("sgd", layer.parameters(), lr=0.1)
    assert [p.shape for p in optimizer.param_groups[0]["params"]] == [(2,)]
    layer.bias.requires_grad_(False)
    with pytest.raises(InputError, match="no parameter that trains"):
        optimizer_by_name("sgd", layer.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "sdg", "lr": 0.1}, "did you mean 'sgd'"),
        ({"name": "sgd", "lr": 0.0}, "learning rate is 0.0"),
        ({"name": "sgd", "lr": math.nan}, "learning rate is nan"),
        ({"name": "sgd", "lr": 0.1, "momentum": 1.0}, "momentum is 1.0"),
        ({"name": "adam", "lr": 0.1, "momentum": 0.9}, "not with adam"),
        ({"name": "sgd", "lr": 0.1, "weight_decay": -1.0}, "weight decay is -1.0"),
    ],
)
def test_optimizer_errors(options: dict[str, object], says: str) -> None:
    with pytest.raises(InputError) as error:
        optimizer_by_name(parameters=nn.Linear(1, 1).parameters(), **options)
    assert says in str(error.value)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_starts_at_the_learning_rate(name: str) -> None:
    found = rates(name, 6, lr=0.3)
    assert found[0] == pytest.approx(0.3)
    assert all(a >= b for a, b in pairwise(found))


def test_schedules_by_their_formulas() -> None:
    assert rates("constant", 3) == [1.0] * 4
    assert rates("linear", 4) == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])
    assert rates("linear:end=0.5", 2) == pytest.approx([1.0, 0.75, 0.5])
    assert rates("cosine", 4) == pytest.approx([(1 + math.cos(math.pi * t / 4)) / 2 for t in range(5)])
    assert rates("step", 6) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001])
    assert rates("step:step_size=1,gamma=0.5", 2) == pytest.approx([1, 0.5, 0.25])
    # thesis 1: from 1 to 0, each step by a constant factor of what is left above the floor
    found = rates("exponential", 10)
    floor = math.exp(-5) / (1 - math.exp(-5))
    factors = [(b + floor) / (a + floor) for a, b in pairwise(found)]
    assert (found[0], found[-1]) == (1.0, 0.0)
    assert factors == pytest.approx([math.exp(-0.5)] * 10)


def test_any_scheduler_of_torch() -> None:
    assert rates("MultiStepLR:milestones=[1,2],gamma=0.1", 2) == pytest.approx([1, 0.1, 0.01])
    assert rates("CosineAnnealingLR:T_max=2", 2) == pytest.approx([1, 0.5, 0])
    assert len(rates("OneCycleLR:max_lr=1.0,total_steps=5", 4)) == 5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cosin", "did you mean 'cosine'"),
        ("StepLRR", "did you mean"),
        ("LambdaLR", "unknown learning rate schedule"),
        ("StepLR", "needs step_size"),
        ("cosine:stop=0", "unknown option of the learning rate schedule 'cosine' 'stop'"),
        ("cosine:end", "options look like"),
        ("cosine:=3", "options look like"),
        ("cosine:end=low", "options look like"),
        ("OneCycleLR:max_lr=0.1", "do not suit"),
    ],
)
def test_schedule_errors(text: str, says: str) -> None:
    with pytest.raises(InputError) as error:
        schedule_by_name(text, sgd(), 5)
    assert says in str(error.value)


def test_rates() -> None:
    assert rate_by_name("osv:k=2") == Oscillating(k=2)
    assert rate_by_name("osv", zeta=0.5) == Oscillating(high=0.5)
    assert rate_by_name("constant", zeta=0.2) == Constant(0.2)
    assert rate_by_name("constant:value=0.1", zeta=0.2) == Constant(0.1)
    with pytest.raises(InputError, match="did you mean 'exd'"):
        rate_by_name("exdd")
    with pytest.raises(InputError, match="known names: 'interest', 'start'"):
        rate_by_name("exd:foo=1")


def test_options() -> None:
    assert parse_options("a", "x") == ("a", {})
    assert parse_options(' a:b=[1,2],c=true,d="e" ', "x") == ("a", {"b": [1, 2], "c": True, "d": "e"})
