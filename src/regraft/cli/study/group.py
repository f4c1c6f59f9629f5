"""The group of the study commands; each is imported when it is asked for."""

from __future__ import annotations

import click

from regraft.cli.lazy import LazyGroup

COMMANDS = {
    "list": "regraft.cli.study.listing",
    "run": "regraft.cli.study.run",
    "report": "regraft.cli.study.report",
    "query": "regraft.cli.study.query",
    "export": "regraft.cli.study.export",
}


@click.group("study", cls=LazyGroup, commands_at=COMMANDS)
def command() -> None:
    """Run whole studies of the theses, or your own, and report published against measured.

    Results are kept cell by cell: a study that was killed goes on where it stopped.
    """
