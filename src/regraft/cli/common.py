"""What the subcommands share: ``--json``, tables, progress bars, the data folder."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from regraft.errors import visible
from regraft.files import atomic_write

F = TypeVar("F", bound=Callable[..., Any])


def json_option(function: F) -> F:
    """``--json FILE``: the same figures for scripts; ``-`` is standard output, without tables."""
    return click.option(
        "--json", "json_path", metavar="FILE", type=click.Path(allow_dash=True), default=None,
        help="Write the figures as JSON to FILE; '-' for standard output, without tables.",
    )(function)  # fmt: skip


def data_dir_option(function: F) -> F:
    """``--data-dir``: where data sets lie."""
    return click.option(
        "--data-dir", type=click.Path(path_type=Path), default=None, envvar="REGRAFT_DATA", show_envvar=True,
        help="Folder with data sets.  [default: ~/.cache/regraft]",
    )(function)  # fmt: skip


def console(json_path: str | None = None) -> Console:
    """Where tables go: standard output, or nowhere visible when JSON goes there."""
    return _Screen(
        stderr=json_path == "-", quiet=json_path == "-", highlight=False, markup=False, emoji=False
    )


class _Screen(Console):
    """Shows names and values from files as they are: brackets are no markup, nothing steers the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        """A text on its way to the screen."""
        return super().render_str(visible(text), **options)


def write_json(path: str | None, figures: dict[str, Any]) -> None:
    """Write figures where ``--json`` says; files appear whole or not at all.

    Raises:
        FileError: the file cannot be written.
    """
    if path is None:
        return
    text = json.dumps(_plain(figures), indent=2, allow_nan=False) + "\n"
    if path == "-":
        sys.stdout.write(text)
        return
    with atomic_write(path) as file:
        file.write(text.encode())


def _plain(value: Any) -> Any:
    """``value`` with JSON's types only: tuples become lists, NaN and infinities null."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def table(*headers: str, title: str | None = None) -> Table:
    """A table whose first column is text and whose other columns are numbers."""
    made = Table(title=title, title_justify="left", header_style="bold", show_edge=False, pad_edge=False)
    for i, header in enumerate(headers):
        made.add_column(header, justify="left" if i == 0 else "right")
    return made


@contextmanager
def progress_bar(label: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A progress bar on standard error, none where that is not a terminal.

    Yields ``advance(steps=1, note="")``.
    """
    screen = Console(stderr=True)
    if not screen.is_terminal:
        yield lambda steps=1, note="": None
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task(label, total=total, note="")
        yield lambda steps=1, note="": bar.update(task, advance=steps, note=note)
