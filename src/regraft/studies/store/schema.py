"""The tables of the database, and the views that are made for studies.

::

    cells     key, step, config (JSON), seconds, started, status (done, failed), error; id is a number for it
    studies   which cells belong to which study at which preset
    rows_X    rows of the step X: the cell's id, the row's number, and a column for each setting and figure
    epochs    a view: cell, step, run, epoch, metric, value
    NAME      a view for each study: preset, cell, step, and the columns of all its steps
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable

FORMAT = 1
APPLICATION = 0x72677374
MOST_COLUMNS = 1900  # SQLite allows 2000
MORE = "more"
"""The column that holds, as JSON, what has no column of its own."""

TABLES = """
CREATE TABLE cells (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, step TEXT NOT NULL, config TEXT NOT NULL, seconds REAL,
    started TEXT, status TEXT NOT NULL, error TEXT
);
CREATE TABLE studies (
    study TEXT NOT NULL, preset TEXT NOT NULL, cell INTEGER NOT NULL REFERENCES cells (id),
    PRIMARY KEY (study, preset, cell)
) WITHOUT ROWID;
CREATE TABLE study_steps (study TEXT NOT NULL, step TEXT NOT NULL, PRIMARY KEY (study, step)) WITHOUT ROWID;
CREATE TABLE steps (step TEXT PRIMARY KEY, table_name TEXT NOT NULL UNIQUE) WITHOUT ROWID;
CREATE TABLE columns (
    step TEXT NOT NULL, name TEXT NOT NULL, column_name TEXT NOT NULL, kind TEXT NOT NULL,
    PRIMARY KEY (step, name)
);
CREATE TABLE metrics (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE epoch_values (
    cell INTEGER NOT NULL REFERENCES cells (id), place INTEGER NOT NULL, metric INTEGER NOT NULL,
    run, epoch, value, PRIMARY KEY (cell, place, metric)
) WITHOUT ROWID;
CREATE VIEW epochs AS
    SELECT c.key AS cell, c.step AS step, e.run AS run, e.epoch AS epoch, m.name AS metric, e.value AS value
    FROM epoch_values e JOIN cells c ON c.id = e.cell JOIN metrics m ON m.id = e.metric;
"""

OWN_NAMES = {
    "cells", "studies", "study_steps", "steps", "columns", "metrics", "epoch_values", "epochs"
}  # fmt: skip
RESERVED = {"cell", "row_number", "preset", MORE}
"""Names of columns that no setting or figure gets; one that has such a name gets a number behind it."""


def create(connection: sqlite3.Connection) -> None:
    """Make the tables of an empty database."""
    for statement in TABLES.strip().split(";\n"):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def quoted(name: str) -> str:
    """A name for SQL.

    >>> quoted('recipe.lr'), quoted('a"b')
    ('"recipe.lr"', '"a""b"')
    """
    return '"' + name.replace('"', '""') + '"'


def rows_table(step: str, taken: Iterable[str]) -> str:
    """The name of a step's table.

    >>> rows_table("merging_steps.train", []), rows_table("a-b", ["rows_a_b"])
    ('rows_merging_steps_train', 'rows_a_b_2')
    """
    return free("rows_" + re.sub(r"\W+", "_", step, flags=re.ASCII).strip("_"), taken)


def view_name(study: str) -> str:
    """The name of a study's view: underscores for hyphens, so that SQL needs no quotes.

    >>> view_name("gates-sine"), view_name("cells")
    ('gates_sine', 'cells_study')
    """
    name = study.replace("-", "_")
    return f"{name}_study" if name in OWN_NAMES or name.startswith(("sqlite_", "rows_")) else name


def free(name: str, taken: Iterable[str]) -> str:
    """A name that is not taken, a number behind it where it must be; SQLite sees no difference of case.

    >>> free("N", ["n", "n_2"])
    'N_3'
    """
    lower = {t.lower() for t in taken}
    name = name.replace("\0", "") or "_"
    if name.lower() not in lower:
        return name
    return next(made for i in range(2, len(lower) + 3) if (made := f"{name}_{i}").lower() not in lower)


def make_view(connection: sqlite3.Connection, study: str) -> None:
    """Make the view of a study anew, from the steps and columns that are known now."""
    parts = connection.execute(
        "SELECT s.step, t.table_name FROM study_steps s JOIN steps t USING (step) "
        "WHERE s.study = ? ORDER BY 1",
        (study,),
    ).fetchall()
    columns: dict[str, str] = {}  # lower case: as it is shown
    of_step: dict[str, dict[str, str]] = {}
    for step, _ in parts:
        of_step[step] = {}
        for (column,) in connection.execute(
            "SELECT column_name FROM columns WHERE step = ? GROUP BY 1 ORDER BY min(rowid)", (step,)
        ):
            columns.setdefault(column.lower(), column)
            of_step[step][column.lower()] = column
    view = quoted(view_name(study))
    connection.execute(f"DROP VIEW IF EXISTS {view}")
    if not parts:
        return
    selects = [_select(study, table, of_step[step], columns) for step, table in parts]
    connection.execute(f"CREATE VIEW {view} AS {' UNION ALL '.join(selects)}")


def _select(study: str, table: str, own: dict[str, str], columns: dict[str, str]) -> str:
    shown = ["m.preset AS preset", "c.key AS cell"]
    if "step" not in columns:
        shown.append("c.step AS step")
    for lower, column in columns.items():
        value = f"r.{quoted(own[lower])}" if lower in own else "NULL"
        shown.append(f"{value} AS {quoted(column)}")
    text = study.replace("'", "''")
    return (
        f"SELECT {', '.join(shown)} FROM studies m JOIN cells c ON c.id = m.cell "
        f"JOIN {quoted(table)} r ON r.cell = c.id WHERE m.study = '{text}'"
    )
