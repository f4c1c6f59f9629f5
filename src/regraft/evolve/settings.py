"""Checks of the numbers that say when and how much of a topology changes."""

from __future__ import annotations

from regraft import schedules
from regraft.errors import InputError
from regraft.schedules import Schedule

HISTORY = 10_000  # updates that a history remembers; the oldest go first


def as_schedule(rate: float | str | Schedule) -> Schedule:
    """A number, the name of a schedule, or a schedule, as a schedule."""
    if isinstance(rate, str):
        return schedules.by_name(rate)
    if callable(rate):
        return rate
    return schedules.Constant(check_rate(rate, "rate"))


def check_rate(rate: float, source: object) -> float:
    """``rate``, or an InputError where it is not in [0, 1]; ``source`` is what gave it."""
    if not 0.0 <= rate <= 1.0:
        raise InputError(f"{source} gives the rate {rate!r}, but the fraction dropped must be in [0, 1]")
    return float(rate)


def at_least_one(name: str, value: int) -> int:
    """``value``, or an InputError where it is not a whole number of 1 or more."""
    if value != int(value) or value < 1:
        raise InputError(f"{name} is {value!r}, but must be a whole number of optimizer steps, at least 1")
    return int(value)
