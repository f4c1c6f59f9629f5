"""Writing results into the database: one transaction a batch, a cell once however often it comes."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.errors import FileError
from regraft.studies.store import schema
from regraft.studies.store.schema import quoted
from regraft.studies.store.steps import Steps, plain_value
from regraft.studies.study import Result

if TYPE_CHECKING:
    from regraft.studies.folder import Folder

FILE = "results.sqlite"
BATCH = 500
_SOME = 500  # SQLite's oldest limit of parameters is 999


class Store:
    """The database of a folder of results.

    It is a copy for queries: the cells' own files are the results, and what it lacks is added from them. All
    that one call adds is there whole or not at all, also after the process is killed.

    >>> import tempfile
    >>> result = Result("k" * 32, "train", {"seed": 1}, [{"accuracy": 0.5}], [], Path(), 2.0)
    >>> with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / FILE) as store:
    ...     store.add("mine", "smoke", [result])
    ...     store.add("mine", "smoke", [result])
    ...     print(store.connection.execute("SELECT preset, seed, accuracy FROM mine").fetchall())
    [('smoke', 1, 0.5)]
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the database at ``path``, or make it.

        Raises:
            FileError: no database, one of another version or program, or one that cannot be written.
        """
        self.path = Path(path)
        with self._telling():
            self.connection = sqlite3.connect(self.path, timeout=30.0, isolation_level=None)
            try:
                self._open()
                self._steps = Steps(self.connection)
                self._metrics: dict[str, int] = dict(self.connection.execute("SELECT name, id FROM metrics"))
            except BaseException:
                self.connection.close()
                raise

    def _open(self) -> None:
        check_format(self.connection, self.path)
        # readers do not wait for the writer, and a killed writer leaves what it had committed
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = NORMAL")
        self.connection.execute("PRAGMA cache_size = -65536")
        with _transaction(self.connection):
            if not self.connection.execute("PRAGMA user_version").fetchone()[0]:
                schema.create(self.connection)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; what lies in SQLite's own files beside it is put into it."""
        with contextlib.suppress(sqlite3.Error):  # another process that reads keeps it as it is
            self.connection.execute("PRAGMA busy_timeout = 0")
            self.connection.execute("PRAGMA journal_mode = DELETE")
        self.connection.close()

    def add(self, study: str, preset: str, results: Iterable[Result]) -> None:
        """Add finished cells to a study, in one transaction; those that are there stay as they are.

        Raises:
            FileError: the disk is full, or the file cannot be written or is damaged.
        """
        batch = list({r.key: r for r in results}.values())
        if not batch:
            return
        with self._writing():
            there = self._known([r.key for r in batch])
            fresh = [r for r in batch if there.get(r.key, (0, None, None))[1:] != _stamp(r)]
            ids = {key: found[0] for key, found in there.items()}
            for key in {r.key for r in fresh} & ids.keys():
                self._forget(ids[key])
            ids |= self._add_cells(fresh, ids)
            changed = self._steps.add(fresh, ids)
            self._add_epochs(fresh, ids)
            self._join(study, preset, {r.step for r in batch}, [ids[r.key] for r in batch], changed)

    def add_failure(self, study: str, preset: str, record: Mapping[str, Any]) -> None:
        """Add a cell that failed; ``record`` has its key, step, config and error. A finished cell stays.

        Raises:
            FileError: the disk is full, or the file cannot be written or is damaged.
        """
        key, step = str(record["key"]), plain_value(str(record.get("step", "")))
        config = json.dumps(record.get("config", {}))
        error = plain_value(str(record.get("error", "")))
        with self._writing():
            self.connection.execute(
                "INSERT INTO cells (key, step, config, started, status, error) "
                "VALUES (?, ?, ?, ?, 'failed', ?) "
                "ON CONFLICT (key) DO UPDATE SET error = excluded.error, started = excluded.started "
                "WHERE status = 'failed'",
                (key, step, config, plain_value(record.get("when")), error),
            )
            found = self.connection.execute("SELECT id FROM cells WHERE key = ?", (key,)).fetchone()
            self._join(study, preset, set(), [found[0]], set())

    def synchronise(
        self,
        folder: Folder,
        study: str,
        preset: str,
        keys: Sequence[str],
        failed: Iterable[str] | None = None,
    ) -> None:
        """Make the database hold these cells of the folder, and the study at this preset no others.

        Args:
            folder: with the cells' own files.
            keys: of the study's cells that are done.
            failed: keys of the study's cells that failed; None leaves those that are in the study.

        Raises:
            FileError: the disk is full, or the file cannot be written or is damaged.
        """
        with self._telling():
            known = {
                k
                for k, status in self.connection.execute("SELECT key, status FROM cells")
                if status == "done"
            }
            members = {
                key
                for (key,) in self.connection.execute(
                    "SELECT c.key FROM studies m JOIN cells c ON c.id = m.cell "
                    "WHERE m.study = ? AND m.preset = ?",
                    (study, preset),
                )
            }
        lacking = [key for key in keys if key not in known]
        for at in range(0, len(lacking), BATCH):
            self.add(
                study, preset, [r for key in lacking[at : at + BATCH] if (r := folder.read(key)) is not None]
            )
        failed = (members - known) & folder.failed() if failed is None else set(failed)
        for key in sorted(failed):
            self.add_failure(study, preset, {**folder.failure(key), "key": key})
        joining = [key for key in keys if key in known and key not in members]
        self._settle(study, preset, joining, members - {*keys, *failed})

    def _settle(self, study: str, preset: str, more: Sequence[str], fewer: set[str]) -> None:
        """Let cells that are there belong to the study, and let others belong to it no longer."""
        if not more and not fewer:
            return
        with self._writing():
            self.connection.executemany(
                "DELETE FROM studies WHERE study = ? AND preset = ? "
                "AND cell = (SELECT id FROM cells WHERE key = ?)",
                [(study, preset, key) for key in fewer],
            )
            ids = [found[0] for found in self._known(more).values()]
            steps = {
                step
                for some in _some(ids)
                for (step,) in self.connection.execute(
                    f"SELECT DISTINCT step FROM cells WHERE id IN ({_marks(some)})", some
                )
            }
            self._join(study, preset, steps, ids, set())

    def _known(self, keys: Sequence[str]) -> dict[str, tuple[int, Any, Any]]:
        """Id and stamp of the cells that are there; a failed one's stamp is that of none."""
        found: dict[str, tuple[int, Any, Any]] = {}
        for some in _some(keys):
            for key, cell, seconds, started, status in self.connection.execute(
                f"SELECT key, id, seconds, started, status FROM cells WHERE key IN ({_marks(some)})", some
            ):
                found[key] = (cell, seconds, started) if status == "done" else (cell, None, None)
        return found

    def _forget(self, cell: int) -> None:
        """Remove the rows and epochs of a cell that was done again."""
        for table in ("epoch_values", *self._steps.tables()):
            self.connection.execute(f"DELETE FROM {quoted(table)} WHERE cell = ?", (cell,))

    def _add_cells(self, results: Sequence[Result], there: Mapping[str, int]) -> dict[str, int]:
        top = self.connection.execute("SELECT coalesce(max(id), 0) FROM cells").fetchone()[0]
        ids: dict[str, int] = {}
        for r in results:
            if r.key in there:
                ids[r.key] = there[r.key]
            else:
                top += 1
                ids[r.key] = top
        self.connection.executemany(
            "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?, 'done', NULL)",
            [(ids[r.key], r.key, r.step, json.dumps(dict(r.config)), *_stamp(r)) for r in results],
        )
        return ids

    def _add_epochs(self, results: Sequence[Result], ids: Mapping[str, int]) -> None:
        values: list[tuple[Any, ...]] = []
        metrics = self._metrics
        for r in results:
            cell = ids[r.key]
            for place, row in enumerate(r.epochs):
                run, epoch = plain_value(row.get("run")), plain_value(row.get("epoch", place + 1))
                for name, value in row.items():
                    if value is not None and name not in ("run", "epoch"):
                        metric = metrics.get(name) or self._metric(name)
                        values.append((cell, place, metric, run, epoch, plain_value(value)))
        self.connection.executemany("INSERT INTO epoch_values VALUES (?, ?, ?, ?, ?, ?)", values)

    def _metric(self, name: str) -> int:
        """The number of a metric that has none yet."""
        number = self._metrics[name] = len(self._metrics) + 1
        self.connection.execute("INSERT INTO metrics VALUES (?, ?)", (number, plain_value(name)))
        return number

    def _join(
        self, study: str, preset: str, steps: set[str], cells: Sequence[int], changed: set[str]
    ) -> None:
        """Let cells belong to a study, and make the views anew that this changes."""
        self.connection.executemany(
            "INSERT OR IGNORE INTO studies VALUES (?, ?, ?)", [(study, preset, cell) for cell in cells]
        )
        stale = {
            name
            for some in _some(sorted(changed))
            for (name,) in self.connection.execute(
                f"SELECT DISTINCT study FROM study_steps WHERE step IN ({_marks(some)})", some
            )
        }
        for step in sorted(steps):
            added = self.connection.execute("INSERT OR IGNORE INTO study_steps VALUES (?, ?)", (study, step))
            if added.rowcount > 0:
                stale.add(study)
        for name in sorted(stale):
            schema.make_view(self.connection, name)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._telling():
            try:
                with _transaction(self.connection):
                    self._refresh_if_others_wrote()
                    yield
            except BaseException:
                self._reload()
                raise

    def _refresh_if_others_wrote(self) -> None:
        """Two processes may write in turn; each reads anew what the other may have added."""
        metrics = self.connection.execute("SELECT count(*) FROM metrics").fetchone()[0]
        if metrics != len(self._metrics) or self._steps.stale():
            self._reload()

    def _reload(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._metrics = dict(self.connection.execute("SELECT name, id FROM metrics"))
            self._steps = Steps(self.connection)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Errors of SQLite as sentences."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter where SQLite quotes what is damaged
            raise FileError(
                f"cannot write '{self.path}' ({error}): make room or give access where it lies, or delete "
                "it; it is made anew from the cells, which keep the results"
            ) from error


def check_format(connection: sqlite3.Connection, path: Path) -> None:
    """Raise FileError unless this is an empty database or one that this version wrote."""
    try:
        connection.execute("PRAGMA trusted_schema = OFF")  # its views and triggers call nothing harmful
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        raise FileError(
            f"'{path}' is damaged or no database ({error}): delete it; it is made anew from the cells"
        ) from error
    if empty and not application:
        return
    if application != schema.APPLICATION:
        raise FileError(f"'{path}' is a database of another program: move it away, results go there")
    if version != schema.FORMAT:
        raise FileError(
            f"'{path}' has format {version}, but this regraft writes {schema.FORMAT}: delete it; it is "
            "made anew from the cells"
        )


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _stamp(result: Result) -> tuple[float, str]:
    return result.seconds, result.started


def _some(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for at in range(0, len(values), _SOME):
        yield values[at : at + _SOME]


def _marks(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))
