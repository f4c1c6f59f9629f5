"""The rows or epochs of a study as one table: plain, or as a pandas data frame."""

from __future__ import annotations

import json
import os
import sqlite3
from typing import Any, Literal

from regraft.errors import MissingDependency
from regraft.studies import catalogue
from regraft.studies.folder import Folder
from regraft.studies.store.query import reading
from regraft.studies.store.refresh import synchronise
from regraft.studies.store.schema import MORE, quoted
from regraft.studies.study import Row, Study, in_order
from regraft.studies.tables import flat

What = Literal["rows", "epochs"]
_MEMBERS = "FROM studies m JOIN cells c ON c.id = m.cell"


def frame(folder: Folder | str | os.PathLike[str], study: Study, preset: str, what: What = "rows") -> Any:
    """The results of a study as a ``pandas.DataFrame``.

    Args:
        folder: of results; its database is brought up to date first.
        what: ``"rows"``: a line for each row, with the columns of configuration and row. ``"epochs"``: a line
            for each epoch of each training, with a column for each metric, and the configuration.

    Raises:
        FileError: no folder of results, or its database cannot be used.
        InputError: the study has no such preset.
        MissingDependency: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise MissingDependency("pandas", "pandas", "a data frame of results") from None
    made = pandas.DataFrame.from_records(records(folder, study, preset, what))
    for name in made.columns:
        # a column of truth values with gaps stays one
        found = made[name].dropna()
        if made[name].dtype == object and len(found) and all(isinstance(v, bool) for v in found):
            made[name] = made[name].astype("boolean")
    return made


def records(
    folder: Folder | str | os.PathLike[str], study: Study, preset: str, what: What = "rows"
) -> list[Row]:
    """The results of a study as plain dicts, in the order of its cells; see ``frame``.

    Raises:
        FileError: no folder of results, or its database cannot be used.
        InputError: the study has no such preset.
    """
    kept = folder if isinstance(folder, Folder) else Folder(folder)
    if os.access(kept.path, os.W_OK):  # of others' folders what is there is read
        synchronise(kept, study, preset)
    cells = in_order(study.cells(catalogue.preset(study, preset).settings))
    place = {cell.key: i for i, cell in enumerate(cells)}
    with reading(kept.path) as connection:
        read = _rows if what == "rows" else _epochs
        found = read(connection, study.name, preset)
    return sorted(found, key=lambda row: place.get(row["cell"], len(place)))  # the order within a cell stays


def _rows(connection: sqlite3.Connection, study: str, preset: str) -> list[Row]:
    steps = connection.execute(
        f"SELECT DISTINCT t.step, t.table_name {_MEMBERS} JOIN steps t USING (step) "
        "WHERE m.study = ? AND m.preset = ?", (study, preset),
    ).fetchall()  # fmt: skip
    found: list[Row] = []
    for step, table in steps:
        columns = connection.execute(
            "SELECT name, column_name, kind FROM columns WHERE step = ? ORDER BY rowid", (step,)
        ).fetchall()
        names = [(name, kind == "truth") for name, column, kind in columns if column != MORE]
        more = any(column == MORE for _, column, _ in columns)
        shown = [f"r.{quoted(column)}" for _, column, _ in columns if column != MORE] + [f"r.{MORE}"] * more
        for key, *values in connection.execute(
            f"SELECT {', '.join(['c.key', *shown])} {_MEMBERS} JOIN {quoted(table)} r ON r.cell = c.id "
            "WHERE m.study = ? AND m.preset = ? AND c.step = ? ORDER BY r.cell, r.row_number",
            (study, preset, step),
        ):
            row: Row = {"cell": key, "step": step}
            for (name, truth), value in zip(names, values, strict=False):
                row[name] = bool(value) if truth and value is not None else value
            if more and values[-1] is not None:
                row |= json.loads(values[-1])
            found.append(row)
    return found


def _epochs(connection: sqlite3.Connection, study: str, preset: str) -> list[Row]:
    found: dict[tuple[str, int], Row] = {}
    configs: dict[str, Row] = {}
    for key, step, config, at, run, epoch, metric, value in connection.execute(
        f"SELECT c.key, c.step, c.config, e.place, e.run, e.epoch, n.name, e.value {_MEMBERS} "
        "JOIN epoch_values e ON e.cell = c.id JOIN metrics n ON n.id = e.metric "
        "WHERE m.study = ? AND m.preset = ? ORDER BY e.cell, e.place, e.metric", (study, preset),
    ):  # fmt: skip
        if key not in configs:
            configs[key] = flat(json.loads(config))
        start = {"cell": key, "step": step, **configs[key], "run": run, "epoch": epoch}
        found.setdefault((key, at), start)[metric] = value
    return list(found.values())
