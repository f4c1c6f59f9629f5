"""A folder of results: one directory a cell, named by the cell's key, there whole or not at all.

::

    regraft-studies.json        format of the folder
    cells/ab/ab12.../           result.json, and networks as safetensors
    failed/ab12....json         cells that failed, with their error
    parts/                      what is being written
    results.sqlite              a copy for queries, made from the cells
    lock                        held while a study runs
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from regraft.container import is_text, only_one
from regraft.errors import FileError
from regraft.files import atomic_write
from regraft.studies.study import Result

FORMAT = 1
MOST_SECONDS = 1e12  # of one cell; a number beyond it comes from a damaged file
MARK = "regraft-studies.json"


class Folder:
    """Results of studies on disk; studies in one folder share the cells that are equal."""

    def __init__(self, path: str | os.PathLike[str], *, create: bool = False) -> None:
        """Open a folder of results.

        Args:
            create: make it where it does not exist.

        Raises:
            FileError: missing, not a folder of results, of another format, or not to be written.
        """
        self.path = Path(path)
        mark = self.path / MARK
        if create and not mark.exists():
            self._create()
        try:
            text = json.loads(mark.read_text(encoding="utf-8"))
            version = text["format"]
        except FileNotFoundError as error:
            raise FileError(
                f"no results of studies in '{self.path}': run `regraft study run NAME --folder {self.path}` "
                "first, or name the folder that holds them"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise FileError(
                f"cannot read '{mark}' ({error}): delete it to start anew with these cells"
            ) from error
        if version != FORMAT:
            raise FileError(
                f"the results in '{self.path}' have format {version!r}, but this regraft reads {FORMAT}: "
                "take another folder, or the version of regraft that wrote them"
            )

    def _create(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise FileError(f"cannot keep results in '{self.path}': it is a file; name a folder")
        ours = (self.path / "cells").is_dir()
        if self.path.exists() and not ours and any(self.path.iterdir()):
            raise FileError(
                f"cannot keep results in '{self.path}': it holds other files; name an empty or new folder"
            )
        try:
            for name in ("cells", "failed", "parts"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(
                f"cannot keep results in '{self.path}': {error.strerror}; name a folder that can be written"
            ) from error
        with atomic_write(self.path / MARK) as file:
            file.write(json.dumps({"format": FORMAT}).encode())

    def cell(self, key: str) -> Path:
        """Where a finished cell lies."""
        return self.path / "cells" / key[:2] / key

    def done(self) -> set[str]:
        """Keys of all finished cells; one look at each of at most 256 folders."""
        found: set[str] = set()
        for part in _entries(self.path / "cells"):
            found.update(e.name for e in _entries(Path(part.path)))
        return found

    def failed(self) -> set[str]:
        """Keys of the cells that failed."""
        return {
            e.name.removesuffix(".json") for e in _entries(self.path / "failed") if e.name.endswith(".json")
        }

    def read(self, key: str) -> Result | None:
        """A finished cell; None where it is missing or cannot be read (it is moved aside then)."""
        result = read(self.cell(key))
        if result is None and self.cell(key).exists():
            aside = self.path / "parts" / f"unreadable-{key}-{secrets.token_hex(4)}"
            with contextlib.suppress(OSError):
                self.cell(key).rename(aside)
        return result

    def failure(self, key: str) -> dict[str, Any]:
        """What is known of a failed cell: config, error, traceback."""
        try:
            found = json.loads((self.path / "failed" / f"{key}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {"error": "unknown: the record of the failure cannot be read"}
        return found if isinstance(found, dict) else {}

    def record_failure(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep a failed cell with its error."""
        with atomic_write(self.path / "failed" / f"{key}.json") as file:
            file.write(json.dumps(dict(record)).encode())

    def forget_failure(self, key: str) -> None:
        """Let a failed cell be tried again."""
        (self.path / "failed" / f"{key}.json").unlink(missing_ok=True)

    def new_part(self) -> Path:
        """An empty directory for what is being written."""
        part = self.path / "parts" / f"{os.getpid()}-{secrets.token_hex(8)}"
        part.mkdir(parents=True)
        return part

    def keep(self, key: str, part: Path) -> None:
        """Make a written part the finished cell; where the cell is there already, the part is thrown away."""
        place = self.cell(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.rename(place)
        except OSError:
            if not place.is_dir():
                raise
            shutil.rmtree(part, ignore_errors=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Within the block no other run may write here; the lock goes with the process that holds it.

        Raises:
            FileError: another run holds the lock.
        """
        with only_one(self.path, "lock"):
            yield

    def clean(self) -> None:
        """Throw away parts that killed processes left; only while the lock is held."""
        for entry in _entries(self.path / "parts"):
            shutil.rmtree(entry.path, ignore_errors=True)


def read(place: Path) -> Result | None:
    """The result in a cell's directory, or None where it is not whole."""
    try:
        raw = json.loads((place / "result.json").read_text(encoding="utf-8"))
        found = Result(
            raw["key"], raw["step"], raw["config"], raw["rows"], raw["epochs"], place, raw["seconds"],
            str(raw.get("started", "")),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if _is_result(found) else None


def _is_result(found: Result) -> bool:
    """Whether all that came from the file is of the form that a result has."""
    texts = all(isinstance(t, str) and is_text(t) for t in (found.key, found.step, found.started))
    lists = all(
        isinstance(lines, list) and all(isinstance(line, dict) for line in lines)
        for lines in (found.rows, found.epochs)
    )
    seconds = isinstance(found.seconds, int | float) and 0 <= found.seconds < MOST_SECONDS
    return texts and lists and seconds and isinstance(found.config, dict)


def _entries(path: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(path) as found:
            yield from found
    except FileNotFoundError:
        return
