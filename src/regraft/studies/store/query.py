"""Reading the database: one statement of SQL, read only, and what there is to ask for."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from regraft.errors import FileError, InputError, suggest
from regraft.studies.store.database import FILE, check_format
from regraft.studies.store.schema import OWN_NAMES, quoted, view_name

_READS = {
    sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE
}  # fmt: skip
_WRITES = ("not authorized", "authorization denied", "readonly database", "prohibited")


@dataclass(frozen=True)
class Answer:
    """The answer to a query: names of columns, and rows of values."""

    columns: list[str]
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True)
class Shown:
    """A table or view of the database.

    Attributes:
        name: for SQL.
        kind: ``"study"``, ``"rows"`` (of one step) or ``"all"`` (of all studies).
        columns: their names.
        rows: how many there are.
        numbers: of a study: the columns that hold numbers.
    """

    name: str
    kind: str
    columns: list[str]
    rows: int
    numbers: tuple[str, ...] = ()


def query(
    folder: str | os.PathLike[str], sql: str, parameters: Sequence[Any] = (), *, study: str | None = None
) -> Answer:
    """Ask the database of a folder of results; it is only read.

    Args:
        folder: of results, or the database itself.
        sql: one SELECT statement, as SQLite has it.
        parameters: for the question marks in it.
        study: name of a study, whose view the statement may call ``rows``.

    Raises:
        FileError: there is no database, or it is of another version or damaged.
        InputError: the statement has a mistake, or would change the results.
    """
    with reading(folder, study) as connection:
        try:
            found = connection.execute(sql, tuple(parameters))
            columns = [column[0] for column in found.description or ()]
            return Answer(columns, found.fetchall())
        except sqlite3.Error as error:
            raise _told(error, connection) from error
        except (ValueError, UnicodeEncodeError) as error:
            raise InputError(
                f"the query cannot be read ({error}): give one SELECT statement of SQLite"
            ) from error


def contents(folder: str | os.PathLike[str]) -> list[Shown]:
    """The tables and views that there are: studies first, then those of all studies, then of single steps.

    Raises:
        FileError: there is no database, or it is of another version or damaged.
    """
    with reading(folder) as connection, _counting(connection, database_of(folder)):
        connection.set_authorizer(None)
        numbers = {
            column for column, kind in connection.execute("SELECT column_name, kind FROM columns")
            if kind == "number"
        }  # fmt: skip
        found = []
        for name in _tables(connection):
            if name.startswith("sqlite_"):
                continue
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({quoted(name)})")]
            count = connection.execute(f"SELECT count(*) FROM {quoted(name)}").fetchone()[0]
            kept = tuple(c for c in columns if c in numbers)
            found.append(Shown(name, _kind(name), columns, count, kept))
    order = ["study", "all", "rows", "inner"]
    return sorted((s for s in found if s.kind != "inner"), key=lambda s: (order.index(s.kind), s.name))


STEPS = 1_000_000, 100
"""Steps of SQLite that counting rows may take: so many, and so many for each byte of the database."""


@contextlib.contextmanager
def _counting(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Errors of a damaged database as a sentence; a view in it that has no end is given up.

    Raises:
        FileError: as said.
    """
    most, done = STEPS[0] + STEPS[1] * path.stat().st_size, 0

    def enough() -> bool:
        nonlocal done
        done += 10_000
        return done > most

    connection.set_progress_handler(enough, 10_000)
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise FileError(
            f"'{path}' is damaged ({error}): delete it; it is made anew from the cells"
        ) from error
    finally:
        connection.set_progress_handler(None, 0)


def _kind(name: str) -> str:
    if name in ("cells", "epochs", "studies"):
        return "all"
    if name in OWN_NAMES:
        return "inner"
    return "rows" if name.startswith("rows_") else "study"


@contextlib.contextmanager
def reading(folder: str | os.PathLike[str], study: str | None = None) -> Iterator[sqlite3.Connection]:
    """A connection that can only read; ``rows`` is the view of the study, if one is named and has rows.

    Raises:
        FileError: there is no database, or it is of another version or damaged.
    """
    path = database_of(folder)
    try:
        connection = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True, timeout=30.0)
    except sqlite3.Error as error:
        raise FileError(f"cannot read '{path}' ({error}): check that it may be read") from error
    with contextlib.closing(connection):
        try:
            check_format(connection, path)
            if study is not None and view_name(study) in _tables(connection):
                # lives in the connection alone
                view = quoted(view_name(study))
                connection.execute(f"CREATE TEMP VIEW rows AS SELECT * FROM main.{view}")
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise FileError(
                f"cannot read '{path}' ({error}): a run that was killed left files beside it; run the study "
                "again, or copy the folder to where it can be written"
            ) from error
        connection.set_authorizer(_allow)
        yield connection


def database_of(folder: str | os.PathLike[str]) -> Path:
    """The database of a folder of results.

    Raises:
        FileError: there is none.
    """
    path = Path(folder)
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise FileError(
            f"there is no database '{path}': run a study with `--folder`, or name the folder that holds "
            "results; `regraft study query NAME` makes it from the cells"
        )
    return path


def _allow(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    reads = action in _READS or (action == sqlite3.SQLITE_PRAGMA and second is None) or (
        action == sqlite3.SQLITE_PRAGMA and first in ("table_info", "table_xinfo", "table_list")
    )  # fmt: skip
    harmful = action == sqlite3.SQLITE_FUNCTION and second in ("load_extension", "writefile", "edit")
    return sqlite3.SQLITE_OK if reads and not harmful else sqlite3.SQLITE_DENY


def _told(error: sqlite3.Error, connection: sqlite3.Connection) -> InputError:
    """A mistake in a query as a sentence that helps."""
    text = str(error)
    if any(w in text for w in _WRITES):
        return InputError(
            "the query would change the database, which is only read here: results come from cells alone; "
            "for tables of your own copy the file and use sqlite3"
        )
    if "one statement" in text:
        return InputError("the query has several statements: give one SELECT at a time")
    connection.set_authorizer(None)
    missing = re.match(r"no such (table|column): (.+)", text)
    if missing:
        kind, name = missing[1], missing[2].rpartition(".")[2]
        known = _tables(connection) if kind == "table" else _columns(connection)
        return InputError(
            f"the query asks for the {kind} {name!r}, which is not there: {suggest(name, known)}"
        )
    return InputError(f"the query has a mistake ({text}): SQLite's SELECT is understood")


def _tables(connection: sqlite3.Connection) -> list[str]:
    return [
        n for (n,) in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
    ]


def _columns(connection: sqlite3.Connection) -> set[str]:
    found = {n for (n,) in connection.execute("SELECT column_name FROM columns")}
    return found | {"preset", "cell", "step", "run", "epoch", "metric", "value", "seconds", "status", "error"}
