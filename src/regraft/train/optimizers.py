"""Optimizers and learning rate schedules by name."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from regraft import schedules
from regraft.errors import InputError, unknown
from regraft.schedules import Progress, Schedule

OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "adagrad")

_WITH_MOMENTUM = ("sgd", "rmsprop")

SCHEDULES = ("constant", "linear", "cosine", "step", "exponential")
FACTORS: dict[str, Callable[..., Schedule]] = {
    "constant": lambda: schedules.Constant(1.0),
    "linear": lambda end=0.0: schedules.LinearDecreasing(1.0, end),
    "cosine": lambda end=0.0: schedules.Cosine(1.0, end),
    "exponential": lambda end=0.0, steepness=5.0: schedules.Exponential(1.0, end, steepness),
}
"""Of ``SCHEDULES`` those that are a function of how far training has come."""


def optimizer_by_name(
    name: str,
    parameters: Iterable[nn.Parameter],
    *,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> Optimizer:
    """A torch optimizer over the parameters that train.

    Args:
        lr: learning rate, positive.
        momentum: in [0, 1), for ``"sgd"`` and ``"rmsprop"``; the others have their own and take 0 only.
        weight_decay: L2 penalty, 0 or more; decoupled from the gradient in ``"adamw"``.

    >>> optimizer_by_name("sgd", nn.Linear(2, 2).parameters(), lr=0.1, momentum=0.9).defaults["momentum"]
    0.9

    Raises:
        InputError: unknown name, a value out of range, or nothing to train.
    """
    check_optimizer(name, lr=lr, momentum=momentum, weight_decay=weight_decay)
    trained = [p for p in parameters if p.requires_grad]
    if not trained:
        raise InputError("the model has no parameter that trains: set requires_grad on some")
    options: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
    if name in _WITH_MOMENTUM:
        options["momentum"] = momentum
    classes: dict[str, Callable[..., Optimizer]] = {
        "sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW,
        "rmsprop": torch.optim.RMSprop, "adagrad": torch.optim.Adagrad,
    }  # fmt: skip
    return classes[name](trained, **options)


def check_optimizer(name: str, *, lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
    """Raise InputError unless ``optimizer_by_name`` would take these."""
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    if not 0.0 < lr < float("inf"):
        raise InputError(f"the learning rate is {lr!r}, but must be a positive number; 0.01 is usual for sgd")
    if not 0.0 <= momentum < 1.0:
        raise InputError(f"momentum is {momentum!r}, but must be in [0, 1); 0.9 is usual")
    if not 0.0 <= weight_decay < float("inf"):
        raise InputError(f"weight decay is {weight_decay!r}, but must be 0 or more; 0.0005 is usual")
    if momentum and name not in _WITH_MOMENTUM:
        raise InputError(f"momentum goes with sgd and rmsprop, not with {name}: leave it at 0")


def schedule_by_name(text: str, optimizer: Optimizer, epochs: int) -> LRScheduler:
    """A learning rate schedule that is stepped once per epoch: ``NAME`` or ``NAME:KEY=VALUE,...``.

    Own names give a factor of the initial learning rate: ``constant``; ``linear`` and ``cosine`` from 1 to
    ``end`` (default 0); ``exponential`` from 1 to ``end`` by a constant factor, shifted to meet both ends
    (thesis 1, section 7.5; ``steepness``, default 5); ``step`` times ``gamma`` (0.1) every ``step_size``
    epochs (a third of them). Any scheduler of ``torch.optim.lr_scheduler`` goes by its class name, for
    example ``CosineAnnealingWarmRestarts:T_0=10``.

    >>> sgd = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=1.0)
    >>> decay = schedule_by_name("exponential", sgd, epochs=4)
    >>> rates = [(sgd.param_groups[0]["lr"], sgd.step(), decay.step())[0] for _ in range(5)]
    >>> [round(r, 2) for r in rates]
    [1.0, 0.28, 0.08, 0.02, 0.0]

    Raises:
        InputError: unknown name or option.
    """
    name, options = parse_options(text, "learning rate schedule")
    if name == "step":
        options.setdefault("step_size", max(1, -(-epochs // 3)))
        options.setdefault("gamma", 0.1)
        return _torch_scheduler("StepLR", optimizer, options)
    if name in FACTORS:
        factor = lr_factor(text)
        return lr_scheduler.LambdaLR(optimizer, lambda epoch: factor(Progress(epoch, epochs)))
    return _torch_scheduler(name, optimizer, options)


def check_schedule(text: str, lr: float, epochs: int) -> None:
    """Raise what ``schedule_by_name`` would raise, without an optimizer where that can be."""
    if parse_options(text, "learning rate schedule")[0] in FACTORS:
        lr_factor(text)  # torch's optimizers import torch.compile when the first one is made: a second
        return
    shadow = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.9)
    schedule_by_name(text, shadow, epochs)


def lr_factor(text: str) -> Schedule:
    """What the learning rate is multiplied by over training: one of ``FACTORS``, with options as for
    ``schedule_by_name``.

    >>> lr_factor("cosine:end=0.5")(Progress(5, 10))
    0.75

    Raises:
        InputError: unknown name or option.
    """
    name, options = parse_options(text, "learning rate schedule")
    if name not in FACTORS:
        raise unknown("learning rate schedule", name, FACTORS)
    made: Schedule = call_with(FACTORS[name], options, f"learning rate schedule '{name}'")
    return made


def rate_by_name(text: str, zeta: float | None = None) -> Schedule:
    """A schedule of the evolution rate: ``NAME`` or ``NAME:KEY=VALUE,...``; ``zeta`` sets where it starts.

    >>> rate_by_name("exd:interest=0.05", zeta=0.4)
    ExponentialDecay(start=0.4, interest=0.05)

    Raises:
        InputError: unknown name or option, a value out of range.
    """
    name, options = parse_options(text, "rate")
    if name not in schedules.RATES:
        raise unknown("rate", name, schedules.RATES)
    rule = schedules.RATES[name]
    if zeta is not None:
        options.setdefault(next(iter(inspect.signature(rule).parameters)), zeta)
    made: Schedule = call_with(rule, options, f"rate '{name}'")
    return made


def parse_options(text: str, kind: str) -> tuple[str, dict[str, Any]]:
    """``NAME:KEY=VALUE,...`` as (name, options); values are JSON, so numbers, true, false and lists work.

    >>> parse_options("MultiStepLR:milestones=[3,6],gamma=0.5", "schedule")
    ('MultiStepLR', {'milestones': [3, 6], 'gamma': 0.5})

    Raises:
        InputError: not of that form.
    """
    name, _, rest = text.strip().partition(":")
    options: dict[str, Any] = {}
    for part in _split_outside_brackets(rest):
        key, equals, value = part.partition("=")
        try:
            options[key.strip()] = json.loads(value)
        except (ValueError, RecursionError):
            equals = ""
        if not equals or not key.strip():
            raise InputError(
                f"the {kind} {text!r} has the option {part!r}, but options look like '{name}:key=0.5,other=3'"
            )
    return name, options


def _split_outside_brackets(text: str) -> list[str]:
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [p for p in parts if p.strip()]


def _torch_scheduler(name: str, optimizer: Optimizer, options: dict[str, Any]) -> LRScheduler:
    known = {
        key: value
        for key, value in vars(lr_scheduler).items()
        if inspect.isclass(value) and issubclass(value, LRScheduler) and value is not LRScheduler
        and "lr_lambda" not in inspect.signature(value).parameters
        and "schedulers" not in inspect.signature(value).parameters
    }  # fmt: skip
    if name not in known:
        raise unknown("learning rate schedule", name, (*SCHEDULES, *known))
    bound = partial(known[name], optimizer)
    made: LRScheduler = call_with(bound, options, f"learning rate schedule '{name}'")
    return made


def call_with(function: Callable[..., Any], options: dict[str, Any], what: str) -> Any:
    """``function(**options)``, with one sentence where an option is unknown, missing or of the wrong kind.

    Raises:
        InputError: as said.
    """
    known = inspect.signature(function).parameters
    needed = [n for n, p in known.items() if p.default is p.empty and n not in options]
    for key in options:
        if key not in known:
            raise unknown(f"option of the {what}", key, known)
    if needed:
        raise InputError(
            f"the {what} needs {' and '.join(needed)}: write {what.split()[-1][1:-1]}:{needed[0]}=..."
        )
    try:
        return function(**options)
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the options {options} do not suit the {what}: {error}") from error
