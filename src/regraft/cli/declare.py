"""Options declared in a line each, and groups of them as one decorator."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
Option = Callable[[Any], Any]


def group(*options: Option) -> Callable[[F], F]:
    """One decorator that adds all options, shown in this order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def text(flags: str, default: str | None, help: str, metavar: str = "NAME") -> Option:
    """A word; ``flags`` are its names, apart by blanks."""
    return click.option(*flags.split(), default=default, metavar=metavar, help=help)


def number(flags: str, default: float | None, help: str) -> Option:
    """A number."""
    return click.option(*flags.split(), type=float, default=default, metavar="X", help=help)


def count(flags: str, default: int | None, help: str, at_least: int | None = None) -> Option:
    """A whole number, as small as ``at_least``; None leaves the check to others."""
    kind = click.INT if at_least is None else click.IntRange(min=at_least)
    return click.option(*flags.split(), type=kind, default=default, metavar="N", help=help)


def listed(names: Iterable[str]) -> str:
    """``a, b, c``."""
    return ", ".join(names)
