"""The options of ``regraft train`` as they may stand in a grid: their names, their types."""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from regraft.errors import InputError
from regraft.train import Recipe

SAME = {
    "early_stop_patience": "patience", "early_stop_accuracy": "stop_accuracy",
    "early_stop_extra": "stop_extra", "fraction": "zeta", "every": "evolve_every",
}  # fmt: skip
"""Names that the command line has for fields of a recipe."""

DATA: dict[str, Any] = {
    "data": "digits",
    "classes": None,
    "per_class": None,
    "test_per_class": None,
    "data_seed": 0,
}
"""The options that choose samples, with their defaults."""

_DATA_TYPES: dict[str, Any] = {
    "data": str, "classes": tuple[str, ...] | None, "per_class": int | None, "test_per_class": int | None,
    "data_seed": int,
}  # fmt: skip

ELSEWHERE = {
    "seed": "say `seeds: 5` at the top",
    "out": "networks are not kept", "checkpoint": "the runner goes on where it stopped",
    "resume": "the runner goes on where it stopped", "tensorboard": "use `regraft study export`",
    "device": "cells run on the CPU", "threads": "each worker has one",
    "data_dir": "pass --data-dir to the command", "download": "fetch the data before",
    "start": "networks start anew", "json": "use `regraft study export`",
    "teachers": "networks learn from the labels alone",
}  # fmt: skip
"""Options of ``regraft train`` that a grid has not, and what to do instead."""

TYPES: dict[str, Any] = {
    f.name: get_type_hints(Recipe)[f.name] for f in fields(Recipe) if f.name != "seed"
} | _DATA_TYPES


def known(name: str) -> str | None:
    """The option that a name means, hyphens and the command line's own names included; None if none.

    >>> known("batch-size"), known("early-stop-patience"), known("seed")
    ('batch_size', 'patience', None)
    """
    plain = name.replace("-", "_")
    plain = SAME.get(plain, plain)
    return plain if plain in TYPES else None


def convert(name: str, value: Any) -> Any:
    """A value from a file as the option's own type.

    >>> convert("lr", "1e-3"), convert("batch_size", "full"), convert("classes", [0, 1])
    (0.001, None, ('0', '1'))

    Raises:
        InputError: the option has no such values.
    """
    kind = TYPES[name]
    if name == "batch_size" and value == "full":
        return None
    if get_origin(kind) in (Union, types.UnionType):
        inner = [k for k in get_args(kind) if k is not type(None)]
        if value is None:
            return None
        kind = inner[0]
    if get_origin(kind) is Literal:
        kind = str
    if get_origin(kind) is tuple:
        return _texts(name, value)
    made = _SCALARS[kind](value)
    if made is None:
        hint = "; put it in quotes" if kind is str and isinstance(value, bool | int | float) else ""
        raise InputError(f"{name} is {value!r}, but must be {_CALLED[kind]}{hint}")
    return made


def _texts(name: str, value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(v, str | int) and not isinstance(v, bool) for v in values):
        raise InputError(f"{name} is {value!r}, but must be a list of words")
    return tuple(str(v) for v in values)


def _number(value: Any) -> float | None:
    """YAML 1.1 takes 1e-3 for text, because it has no point."""
    try:
        made = (
            float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
        )
    except (ValueError, OverflowError):
        return None
    return made if math.isfinite(made) else None


def _whole(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


_SCALARS: dict[Any, Callable[[Any], Any]] = {
    float: _number,
    int: _whole,
    bool: lambda v: v if isinstance(v, bool) else None,
    str: lambda v: v if isinstance(v, str) else None,
}
_CALLED = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
