"""Options declared in a line each, and groups of them as one decorator."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])
Option = Callable[[Any], Any]


def group(*options: Option) -> Callable[[F], F]:
    """One decorator that adds all options, shown in this order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def text(
    flags: str, default: str | None, help: str, metavar: str = "NAME", *, names: Iterable[str] = ()
) -> Option:
    """A word; ``flags`` are its names, apart by blanks.

    ``names`` are words that it can be: the help lists them in the place of ``{names}``, a shell offers them.
    A metavar such as ``each|overall`` names them too.
    """
    known = list(names) or (metavar.split("|") if "|" in metavar else [])
    return click.option(
        *flags.split(), default=default, metavar=metavar, help=help.replace("{names}", listed(known)),
        shell_complete=offering(known) if known else None,
    )  # fmt: skip


def offering(
    words: Iterable[str], *, or_file: bool = False
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]:
    """What a shell offers on TAB for an option or argument that takes one of ``words``, among others; files
    too with ``or_file``."""
    known = list(words)

    def complete(context: click.Context, parameter: click.Parameter, start: str) -> list[CompletionItem[str]]:
        files = [CompletionItem(start, type="file")] if or_file else []  # bash wants them first
        return files + [CompletionItem(word) for word in known if word.startswith(start)]

    return complete


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
