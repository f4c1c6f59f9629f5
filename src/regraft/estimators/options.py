"""From an estimator's parameters to recipes of trainings, with their own names in every message."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from regraft.errors import InputError, check_density
from regraft.train import Recipe

LARGEST_BATCH = 50  # of batch_size="auto"
SGD_LR = {"cross-entropy": 0.05, "bce": 0.05, "mse": 0.02}
"""Learning rate of ``learning_rate_init="auto"`` for sgd and samples whose mean square is 1 or less. The
gradient of the squared error is not bounded as that of the others is, and diverged at 0.05."""

USES_MOMENTUM = ("sgd", "rmsprop")

_WHOLE: dict[str, tuple[int, str]] = {
    "max_iter": (1, "epochs"),
    "n_iter_no_change": (1, "epochs without improvement"),
    "n_networks": (1, "networks"),
}
_REAL = {
    "alpha": (0.0, math.inf, "0 or more; 0.0001 is usual"),
    "tol": (0.0, math.inf, "0 or more; 0.0001 is usual"),
    "momentum": (0.0, 1.0, "in [0, 1); 0.9 is usual"),
}
_YES_NO = ("early_stopping", "warm_start")


def check(params: Mapping[str, Any]) -> None:
    """Raise InputError for a value that no training could use, whatever the data."""
    for name, (least, what) in _WHOLE.items():
        if not _whole(params[name]) or params[name] < least:
            raise InputError(f"{name} is {params[name]!r}, but must be a whole number of {what}, 1 or more")
    for name, (low, high, wanted) in _REAL.items():
        value = params[name]
        if not _real(value) or not low <= value < high:
            raise InputError(f"{name} is {value!r}, but must be {wanted}")
    for name in _YES_NO:
        if not isinstance(params[name], bool | np.bool_):
            raise InputError(f"{name} is {params[name]!r}, but must be True or False")
    _check_fraction(params["validation_fraction"])
    device(params["device"])
    check_density(params["density"])
    sizes(params["hidden_layer_sizes"])
    rate = params["learning_rate_init"]
    if not (isinstance(rate, str) and rate == "auto") and not (_real(rate) and 0 < rate < math.inf):
        raise InputError(
            f"learning_rate_init is {rate!r}, but must be 'auto' or a positive number; 0.05 is usual for sgd"
        )
    batch = params["batch_size"]
    if not (isinstance(batch, str) and batch == "auto") and not (_whole(batch) and batch >= 1):
        raise InputError(
            f"batch_size is {batch!r}, but must be 'auto' or a whole number of samples, 1 or more"
        )
    if params["n_networks"] > 1 and not sizes(params["hidden_layer_sizes"]):
        raise InputError(
            f"n_networks is {params['n_networks']}, but networks are merged by their hidden units and "
            "hidden_layer_sizes is empty: give a hidden layer, as hidden_layer_sizes=(100,)"
        )


def _check_fraction(value: Any) -> None:
    if not _real(value) or not 0.0 < value < 1.0:
        raise InputError(f"validation_fraction is {value!r}, but must be in (0, 1); 0.1 is usual")


def device(value: Any) -> torch.device:
    """``device`` as torch's.

    >>> device("cpu")
    device(type='cpu')

    Raises:
        InputError: no such device here.
    """
    try:
        found = torch.device(value)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(
            f"device is {value!r}, which cannot be used here: try 'cpu', 'cuda' or 'cuda:0'"
        ) from error
    return found


def sizes(value: Any) -> list[int]:
    """``hidden_layer_sizes`` as a list.

    >>> sizes(100), sizes((30, 20))
    ([100], [30, 20])

    Raises:
        InputError: not a positive whole number or a sequence of such.
    """
    given = [value] if _whole(value) else value
    several = isinstance(given, Sequence | np.ndarray) and not isinstance(given, str)
    if not several or not all(_whole(size) and size >= 1 for size in given):
        raise InputError(
            f"hidden_layer_sizes is {value!r}, but must be a positive whole number, or a sequence of such, "
            "one for each hidden layer: (100,)"
        )
    return [int(size) for size in given]


def recipe(params: Mapping[str, Any], *, loss: str, samples: int, lr: float, seed: int) -> Recipe:
    """The training that an estimator's parameters ask for.

    Raises:
        InputError: an unknown name, with the nearest ones.
    """
    return Recipe(
        model="-".join(["mlp:in", *map(str, sizes(params["hidden_layer_sizes"])), "classes"]),
        density=float(params["density"]),
        allocate=params["allocate"],
        activation=params["activation"],
        evolve="none" if params["evolve"] is None else params["evolve"],
        rate=_rate(params["rate"]),
        optimizer=params["optimizer"],
        lr=lr,
        momentum=float(params["momentum"]) if params["optimizer"] in USES_MOMENTUM else 0.0,
        weight_decay=float(params["alpha"]),
        lr_schedule=params["learning_rate"],
        loss=loss,
        epochs=int(params["max_iter"]),
        batch_size=batch_size(params["batch_size"], samples),
        seed=seed,
    )


def batch_size(value: Any, samples: int) -> int:
    """Samples per step."""
    return min(LARGEST_BATCH if value == "auto" else int(value), samples)


def learning_rate(value: Any, optimizer: str, loss: str, x: Tensor) -> float:
    """``learning_rate_init`` as a number.

    ``"auto"`` is 0.001 for the optimizers that scale each step themselves, and for sgd that of
    ``SGD_LR`` / max(1, m) where m is the mean of x^2, with which the gradient's Lipschitz constant grows.
    """
    if value != "auto":
        return float(value)
    if optimizer != "sgd":
        return 0.001
    return SGD_LR[loss] / max(1.0, x.double().square().mean().item())


def _rate(value: Any) -> str | None:
    """The evolution rate as a recipe has it: a number is a constant."""
    if value is None or isinstance(value, str):
        return value
    if not _real(value) or not 0.0 <= value <= 1.0:
        raise InputError(
            f"rate is {value!r}, but must be in [0, 1] (0.3 replaces 30 % of the connections), the name of a "
            "schedule such as 'cosine', or None for the method's own"
        )
    return f"constant:value={float(value)}"


def _whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, Integral) and not isinstance(value, bool | np.bool_)


def _real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)
