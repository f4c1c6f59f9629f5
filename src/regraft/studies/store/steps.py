"""The tables of rows: one for each step, with a column for each setting and figure as they appear."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from regraft.studies.store.schema import MORE, MOST_COLUMNS, OWN_NAMES, RESERVED, free, quoted, rows_table
from regraft.studies.study import Result, Row

_KINDS = {bool: "truth", int: "number", float: "number", str: "text"}


class Steps:
    """What is known of the tables, and the rows that go into them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._tables: dict[str, str] = dict(connection.execute("SELECT step, table_name FROM steps"))
        self._columns: dict[str, dict[str, str]] = {step: {} for step in self._tables}
        self._kinds: dict[tuple[str, str], str] = {}
        for step, name, column, kind in connection.execute(
            "SELECT step, name, column_name, kind FROM columns ORDER BY rowid"
        ):
            if step not in self._tables or not all(isinstance(text, str) for text in (name, column, kind)):
                raise sqlite3.DatabaseError("its columns do not fit its tables")
            self._columns[step][name] = column
            self._kinds[step, name] = kind

    def tables(self) -> list[str]:
        """Names of all tables of rows."""
        return list(self._tables.values())

    def stale(self) -> bool:
        """Whether the database knows other steps or columns than this."""
        steps, columns = self._connection.execute(
            "SELECT (SELECT count(*) FROM steps), (SELECT count(*) FROM columns)"
        ).fetchone()
        return bool(steps != len(self._tables) or columns != len(self._kinds))

    def add(self, results: Sequence[Result], ids: Mapping[str, int]) -> set[str]:
        """Insert the rows of cells that are new.

        Returns:
            The steps whose columns have changed.
        """
        from regraft.studies.tables import joined  # its module knows the runner, which knows this one

        by_step: dict[str, list[tuple[int, int, Row]]] = {}
        for r in results:
            for number, row in enumerate(joined(r)):
                # the views have both; what a step itself calls so has other values
                for name, own in (("cell", r.key), ("step", r.step)):
                    if row[name] == own:
                        del row[name]
                by_step.setdefault(r.step, []).append((ids[r.key], number, _encodable(row)))
        changed = {step for step, rows in by_step.items() if self._prepare(step, [row for *_, row in rows])}
        for step, rows in by_step.items():
            self._insert(step, rows)
        return changed

    def _prepare(self, step: str, rows: Sequence[Row]) -> bool:
        """Make the step's table and the columns that it lacks."""
        changed = step not in self._tables
        if changed:
            table = rows_table(step, [*self._tables.values(), *OWN_NAMES])
            self._tables[step], self._columns[step] = table, {}
            self._connection.execute("INSERT INTO steps VALUES (?, ?)", (step, table))
            self._connection.execute(
                f"CREATE TABLE {quoted(table)} (cell INTEGER NOT NULL REFERENCES cells (id), "
                "row_number INTEGER NOT NULL, PRIMARY KEY (cell, row_number)) WITHOUT ROWID"
            )
        kinds: dict[str, set[str]] = {}
        for row in rows:
            for name, value in row.items():
                found = kinds.setdefault(name, set())
                if value is not None:
                    found.add(_KINDS.get(type(value), "text"))
        for name, found in kinds.items():
            changed |= self._column(step, name, found)
        return changed

    def _column(self, step: str, name: str, found: set[str]) -> bool:
        """Make a column if it is not there, and note what it holds; whether it was made."""
        columns, before = self._columns[step], self._kinds.get((step, name))
        kind = " ".join(sorted(found | set((before or "").split())))
        new = before is None
        if new:
            own = set(columns.values())
            full = len(own) >= MOST_COLUMNS
            column = MORE if full else free(name, own | RESERVED)
            if column not in own:
                self._connection.execute(
                    f"ALTER TABLE {quoted(self._tables[step])} ADD COLUMN {quoted(column)}"
                )
            columns[name] = column
            self._connection.execute("INSERT INTO columns VALUES (?, ?, ?, ?)", (step, name, column, kind))
        elif kind != before:
            self._connection.execute(
                "UPDATE columns SET kind = ? WHERE step = ? AND name = ?", (kind, step, name)
            )
        self._kinds[step, name] = kind
        return new

    def _insert(self, step: str, rows: Sequence[tuple[int, int, Row]]) -> None:
        columns = self._columns[step]
        groups: dict[tuple[str, ...], list[list[Any]]] = {}
        for cell, number, row in rows:
            names = [n for n in row if columns[n] != MORE]
            shown = [quoted(columns[n]) for n in names]
            values = [cell, number, *(plain_value(row[n]) for n in names)]
            rest = {n: v for n, v in row.items() if columns[n] == MORE and v is not None}
            if rest:
                shown.append(MORE)
                values.append(json.dumps(rest))
            groups.setdefault(tuple(shown), []).append(values)
        for shown_columns, group in groups.items():
            into = ", ".join(("cell", "row_number", *shown_columns))
            marks = ",".join("?" * (len(shown_columns) + 2))
            self._connection.executemany(
                f"INSERT INTO {quoted(self._tables[step])} ({into}) VALUES ({marks})", group
            )


def plain_value(value: Any) -> Any:
    """What SQLite can hold: whole numbers of more than 64 bits and broken characters as text.

    >>> plain_value(2**70), plain_value(0.5), plain_value(True)
    ('1180591620717411303424', 0.5, True)
    """
    if type(value) is float:  # most are, and there are many
        return value
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    return _text(value) if isinstance(value, str) else value


def _encodable(row: Row) -> Row:
    try:
        "".join(row).encode()
    except UnicodeEncodeError:
        return {_text(name): value for name, value in row.items()}
    return row


def _text(value: str) -> str:
    """Text without half characters, which UTF-8 has not."""
    return value.encode("utf-8", "replace").decode("utf-8")
