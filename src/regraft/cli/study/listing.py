"""``regraft study list``: every study, what it reproduces, what each preset costs."""

from __future__ import annotations

from pathlib import Path

import click

from regraft.cli.common import console, json_option, table, write_json
from regraft.studies.catalogue import named, names
from regraft.studies.run.folder import MARK, Folder
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
    lines = table("Study", "Reproduces", "Preset", "Cells", "Done", "Cost", "Data")
    for column in lines.columns[1:]:
        column.justify = "left"
    figures = []
    for study in found:
        for i, (name, preset) in enumerate(study.presets.items()):
            keys = {c.key for c in in_order(study.cells(preset.settings))}
            there = len(keys & done)
            lines.add_row(
                study.name if i == 0 else "", study.reproduces if i == 0 else "", name, f"{len(keys):,}",
                f"{there:,}" if there else "-", preset.cost, ", ".join(preset.data) or "embedded",
                end_section=i == len(study.presets) - 1,
            )  # fmt: skip
            figures.append(described(study, name, len(keys), there))
    shown.print(lines)
    shown.print(f"\nRun one with `regraft study run {names()[0]} --preset small`.")
    write_json(json_path, {"studies": figures})


def described(study: Study, preset: str, cells: int, done: int) -> dict[str, object]:
    """One line as plain values."""
    chosen = study.presets[preset]
    return {
        "name": study.name, "title": study.title, "reproduces": study.reproduces, "preset": preset,
        "cells": cells, "done": done, "cost": chosen.cost, "data": list(chosen.data),
    }  # fmt: skip
