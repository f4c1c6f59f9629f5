"""``regraft study list``: every study, what it reproduces, what each preset costs."""

from __future__ import annotations

from pathlib import Path

import click

from regraft.cli.common import console, json_option, write_json
from regraft.data.embedded import LOADERS
from regraft.studies.catalogue import named, names
from regraft.studies.folder import MARK, Folder
from regraft.studies.study import Study, in_order


@click.command("list")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("runs/studies"), metavar="FOLDER",
              help="Of results: shows how much of each preset is there.")  # fmt: skip
@json_option
def command(folder: Path, json_path: str | None) -> None:
    """Every study, what it reproduces, and the cost of each preset on two cores."""
    done = Folder(folder).done() if (folder / MARK).exists() else set()
    found = [named(name) for name in names()]
    shown = console(json_path)
    figures = []
    for study in found:
        # a block each: a table would cut the names on a narrow terminal
        shown.print(f"[bold]{study.name}[/bold]  {study.title}\n  reproduces {study.reproduces}")
        for name, preset in study.presets.items():
            keys = {c.key for c in in_order(study.cells(preset.settings))}
            there = len(keys & done)
            part = f", {there:,} done" if there else ""
            files = [name for name in preset.data if name not in LOADERS]
            needs = f", needs {', '.join(files)}" if files else ""
            shown.print(f"    {name:<6} {len(keys):>7,} cells{part}, {preset.cost}{needs}")
            figures.append(described(study, name, len(keys), there))
        shown.print()
    shown.print(f"Run one with `regraft study run {names()[0]} --preset small`.")
    write_json(json_path, {"studies": figures})


def described(study: Study, preset: str, cells: int, done: int) -> dict[str, object]:
    """One line as plain values."""
    chosen = study.presets[preset]
    return {
        "name": study.name, "title": study.title, "reproduces": study.reproduces, "preset": preset,
        "cells": cells, "done": done, "cost": chosen.cost, "data": list(chosen.data),
    }  # fmt: skip
