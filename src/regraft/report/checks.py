"""Checks that all parts of a report share; each message says where the fault is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from regraft.errors import InputError


def same(a: int, b: int, where: str, what_a: str, what_b: str) -> None:
    """Raise InputError unless there are as many of the one as of the other."""
    if a != b:
        raise InputError(f"{where} has {a} {what_a} but {b} {what_b}: they must be as many")


def matrix(rows: Sequence[Sequence[Any]], height: int, width: int, where: str) -> None:
    """Raise InputError unless ``rows`` has this size and holds finite numbers or None."""
    same(height, len(rows), where, "names of rows", "rows")
    for row in rows:
        same(width, len(row), where, "names of columns", "numbers in a row")
        numbers(row, where)


def numbers(values: Sequence[Any], where: str) -> None:
    """Raise InputError unless all are finite numbers or None."""
    finite([v for v in values if v is not None], where)


def finite(values: Sequence[Any], where: str) -> None:
    """Raise InputError unless all are finite numbers."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"{where} holds {value!r}, but must hold finite numbers")


def positive(values: Sequence[Any], where: str) -> None:
    """Raise InputError where a number has no place on a logarithmic axis; None is passed over."""
    for value in values:
        if value is not None and value <= 0:
            raise InputError(
                f"{where} holds {value!r}, which has no place on a logarithmic axis: leave it out (None), or "
                "take a linear axis"
            )
