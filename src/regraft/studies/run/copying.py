"""The copy of the results in a database, as far as the runner is concerned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from regraft.studies.run.folder import Folder
from regraft.studies.study import Result


class Store:
    """Takes what the runner tells it."""

    def __init__(self, path: Path) -> None:
        """The database at ``path``."""

    def synchronise(self, folder: Folder, study: str, preset: str, keys: Sequence[str]) -> None:
        """Take over what is there already."""

    def add(self, study: str, preset: str, results: Iterable[Result]) -> None:
        """New results."""

    def add_failure(self, study: str, preset: str, record: Mapping[str, Any]) -> None:
        """A cell that failed."""

    def close(self) -> None:
        """Nothing more is to come."""
