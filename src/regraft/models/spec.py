"""What a caller asks of a model, and the checks of a spec that may come from a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regraft.errors import InputError, MismatchError, unknown


@dataclass(frozen=True)
class Request:
    """What is known when a model's short name is read: the data it must fit, and the options."""

    input_shape: tuple[int, ...] | None = None
    classes: int | None = None
    dropout: float = 0.0
    activation: str = "relu"

    @property
    def inputs(self) -> int | None:
        """Number of input values of one sample."""
        return None if self.input_shape is None else math.prod(self.input_shape)

    def check_ends(self, name: str, inputs: int, outputs: int) -> None:
        """Raise MismatchError unless the model takes the data's samples and has an output for each class."""
        if self.inputs is not None and inputs != self.inputs:
            shape = "x".join(map(str, self.input_shape or ()))
            raise MismatchError(
                f"the model '{name}' takes {inputs} inputs, but a sample of the data has {self.inputs} "
                f"values ({shape}): let the model start with {self.inputs}"
            )
        if self.classes is not None and outputs < self.classes:
            raise MismatchError(
                f"the model '{name}' has {outputs} outputs, but the data has {self.classes} classes: let the "
                f"model end with {self.classes}"
            )

    def refuse_argument(self, name: str, argument: str) -> None:
        """Raise InputError if something follows the colon of a model that takes nothing there."""
        if argument:
            raise InputError(f"the model '{name}' takes nothing after its name, but got '{name}:{argument}'")


def check_fields(spec: Mapping[str, Any], fields: Sequence[str]) -> None:
    """Raise InputError unless the spec has exactly these fields besides its name."""
    name = spec.get("name")
    for field in spec:
        if field != "name" and field not in fields:
            raise unknown(f"option of the model '{name}'", field, fields)
    for field in fields:
        if field not in spec:
            raise InputError(f"the spec of the model '{name}' lacks '{field}': it needs {', '.join(fields)}")


LARGEST = 2**31 - 1
"""Largest size of a layer."""
DEEPEST = 2000
"""Most layers of a model: a spec of a few bytes must not build for ever."""


def number_of(digits: str) -> int | None:
    """The number from 1 to ``LARGEST`` that decimal digits say; None for anything else.

    >>> number_of("12"), number_of("-1"), number_of("0"), number_of("9" * 5000)
    (12, None, None, None)
    """
    if not digits.isdecimal() or len(digits) > len(str(LARGEST)):
        return None
    return int(digits) if 0 < int(digits) <= LARGEST else None


def check_sizes(spec: Mapping[str, Any], field: str, at_least: int) -> list[int]:
    """The field as a list of positive integers, or an InputError."""
    sizes = spec[field]
    good = isinstance(sizes, list | tuple) and at_least <= len(sizes) <= DEEPEST + 1
    if not good or not all(type(n) is int and 0 < n <= LARGEST for n in sizes):
        raise InputError(
            f"the spec of the model '{spec.get('name')}' has {field} {sizes!r}, but it must be a list of "
            f"{at_least} to {DEEPEST + 1} positive integers up to {LARGEST}"
        )
    return list(sizes)


def check_probability(value: Any, name: str = "dropout") -> float:
    """``value`` as a float in [0, 1), or an InputError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < 1.0:
        raise InputError(f"{name} is {value!r}, but must be in [0, 1): 0.3 drops 30 % of the units")
    return float(value)
