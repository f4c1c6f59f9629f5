"""``regraft study run``: do what is missing of a study."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from regraft.cli.common import console, data_dir_option, json_option, table, write_json
from regraft.cli.declare import text
from regraft.cli.study.options import preset_option, study_names
from regraft.studies.catalogue import named
from regraft.studies.run import Folder, Progress, Ran, run
from regraft.studies.run.executors import EXECUTORS

FAILED = 1
QUIET_SECONDS = 60.0


@click.command("run")
@click.argument("study", metavar="NAME", shell_complete=study_names)
@preset_option
@click.option("--folder", type=click.Path(path_type=Path), default=Path("runs/studies"), metavar="FOLDER",
              help="Of results; studies in one folder share equal cells.")  # fmt: skip
@text("--executor", "pool", "One of {names}.", names=EXECUTORS)
@click.option("--workers", type=int, default=None, metavar="N",
              help="Cells at once, one thread each.  [default: all cores]")  # fmt: skip
@click.option("--address", default=None, metavar="ADDRESS",
              help="Of a Ray cluster; 'auto' for one on this machine.")  # fmt: skip
@click.option("--retry-failed", is_flag=True, help="Try cells again that failed before.")
@data_dir_option
@json_option
def command(
    study: str, preset: str, folder: Path, executor: str, workers: int | None, address: str | None,
    retry_failed: bool, data_dir: Path | None, json_path: str | None,
) -> int:  # fmt: skip
    """Run the study NAME, or the one in a Python or YAML file of your own, as far as it is not done yet.

    Stop it at any moment, or lose the machine: the same command goes on where it was.

    \b
    regraft study run merging-phase-2 --preset small
    regraft study run my_study.py --workers 4
    regraft study run pruning-combined --executor ray --address auto

    Ends with exit code 1 where cells failed; they are kept with their error.
    """
    chosen = named(study)
    kept = Folder(folder, create=True)
    shown = console(json_path)
    with _stopped_by_sigterm(), _bar(chosen.name) as tell:
        ran = run(
            chosen, preset, kept, executor=executor, workers=workers, address=address,
            retry_failed=retry_failed, data_dir=data_dir, tell=tell,
        )  # fmt: skip
    shown.print(_sentence(chosen.name, ran))
    if ran.failed:
        _show_failures(shown, kept, ran)
        shown.print("They are kept with their error; `--retry-failed` tries them again.")
    elif ran.complete:
        shown.print(f"See `regraft study report {study} --preset {preset} --folder {folder} --out report`.")
    figures = {
        "study": chosen.name, "preset": preset, "cells": ran.total, "before": ran.before, "done": ran.done,
        "failed": list(ran.failed), "blocked": ran.blocked, "seconds": ran.seconds,
    }  # fmt: skip
    write_json(json_path, figures)
    return FAILED if ran.failed else 0


def _sentence(name: str, ran: Ran) -> str:
    if ran.complete and not ran.done:
        return f"{name}: all {ran.total:,} cells were there."
    text = f"{name}: {ran.done:,} cells done in {timedelta(seconds=round(ran.seconds))}"
    if ran.before:
        text += f", {ran.before:,} were there"
    if ran.failed:
        text += f", {len(ran.failed):,} failed"
    if ran.blocked:
        text += f", {ran.blocked:,} wait for those"
    return f"{text}; {ran.total:,} in all."


def _show_failures(shown: Console, folder: Folder, ran: Ran, most: int = 10) -> None:
    lines = table("Failed cell", "Step", "Error")
    for column in lines.columns[1:]:
        column.justify = "left"
    for key in ran.failed[:most]:
        record = folder.failure(key)
        lines.add_row(
            str(folder.path / "failed" / f"{key}.json"), str(record.get("step")), str(record["error"])
        )
    shown.print(lines)
    if len(ran.failed) > most:
        shown.print(f"and {len(ran.failed) - most:,} more.")


@contextmanager
def _bar(label: str) -> Iterator[Callable[[Progress], None]]:
    """Cells done and the time left on standard error; a line now and then where that is no terminal."""
    screen = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )  # fmt: skip
    if not screen.is_terminal:
        yield _lines(label)
        return
    with Bar(*columns, console=screen, transient=True) as bar:
        task = bar.add_task(label, total=None, left="")
        yield lambda p: bar.update(task, total=p.total, completed=p.ended, left=_left(p))


def _left(progress: Progress) -> str:
    seconds = progress.remaining()
    text = "" if seconds is None else f"{timedelta(seconds=round(seconds))} left"
    return f"{text}, {progress.failed} failed" if progress.failed else text


def _lines(label: str) -> Callable[[Progress], None]:
    told, when = [-1], [0.0]

    def tell(progress: Progress) -> None:
        tenth, now = 10 * progress.ended // max(progress.total, 1), time.monotonic()
        # long first cells would keep the count at a tenth for half an hour
        if tenth != told[0] or now - when[0] > QUIET_SECONDS:
            told[0], when[0] = tenth, now
            text = f"{label}: {progress.ended:,} of {progress.total:,} cells"
            click.echo(", ".join(t for t in (text, _left(progress)) if t), err=True)

    return tell


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """A polite end (SIGTERM) is the same as Ctrl-C: processes are ended, what is done is kept."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
