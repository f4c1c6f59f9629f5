"""A study at one preset with its rows and verdicts: all that its pages are made of."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regraft import files
from regraft.studies.claims import NOT_REPRODUCED, OUT_OF_SCALE, REPRODUCED
from regraft.studies.folder import Folder
from regraft.studies.study import Result, Rows, Study, in_order
from regraft.studies.tables import table
from regraft.studies.verdicts import Verdict, verdicts

VERDICTS = (REPRODUCED, NOT_REPRODUCED, OUT_OF_SCALE)
DEFAULT_FOLDER = Path("runs/studies")


@dataclass(frozen=True, eq=False)
class Published:
    """What a study has found so far.

    Attributes:
        study: the study.
        rows: its table at the preset ``rows.preset``.
        verdicts: one for each of its claims.
        failed: cells that failed; they are among ``rows.missing``.
        called: how the study is named on the command line: its name, or its file.
        folder: where its cells lie.
        versions: of the software that did the cells.
    """

    study: Study
    rows: Rows
    verdicts: Sequence[Verdict] = ()
    failed: int = 0
    called: str = ""
    folder: Path = DEFAULT_FOLDER
    versions: dict[str, str] = field(default_factory=files.versions)

    @property
    def done(self) -> int:
        """Finished cells."""
        return len(self.rows.results)

    @property
    def cells(self) -> int:
        """All cells of the preset."""
        return self.done + self.rows.missing

    @property
    def seconds(self) -> float:
        """Time that all finished cells took together."""
        return sum(r.seconds for r in self.rows.results)

    @property
    def counts(self) -> dict[str, int]:
        """How many claims have each verdict."""
        found = Counter(v.verdict for v in self.verdicts)
        return {verdict: found[verdict] for verdict in VERDICTS}

    @property
    def file(self) -> str:
        """The name of its page, beside the index."""
        return f"{self.study.name}.html" if self.study.name != "index" else "study-index.html"

    def command(self, what: str) -> str:
        """The command that runs (``"run"``) or reports (``"report"``) the study."""
        words = ["regraft", "study", what, self.called or self.study.name, "--preset", self.rows.preset]
        if self.folder != DEFAULT_FOLDER:
            words += ["--folder", str(self.folder)]
        return shlex.join(words)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.study.name, "title": self.study.title, "reproduces": self.study.reproduces,
            "preset": self.rows.preset,
            "cells": {
                "all": self.cells, "done": self.done, "missing": self.rows.missing, "failed": self.failed,
            },
            "rows": len(self.rows), "seconds": self.seconds, "counts": self.counts,
            "verdicts": [v.plain() for v in self.verdicts],
        }  # fmt: skip


def published(study: Study, preset: str, folder: Folder, *, called: str = "") -> Published:
    """Read a study's finished cells and judge its claims.

    Args:
        called: how the study is named on the command line, where that is not its name.

    Raises:
        InputError: the study has no such preset.
    """
    rows = table(study, preset, folder)
    found = verdicts(study, rows) if rows.results else []
    failed = folder.failed()
    if failed:
        done = {r.key for r in rows.results}
        keys = (c.key for c in in_order(study.cells(study.presets[preset].settings)))
        failed = {k for k in keys if k in failed and k not in done}
    made_with = _versions(rows.results) or files.versions()
    return Published(study, rows, found, len(failed), called, folder.path, made_with)


def _versions(results: Sequence[Result]) -> dict[str, str]:
    """What the first and the last cell were done with: one version of each, or both where they differ."""
    found: dict[str, list[str]] = {}
    for result in (*results[:1], *results[1:][-1:]):
        try:
            raw = json.loads((result.folder / "result.json").read_text(encoding="utf-8"))["versions"]
        except (OSError, ValueError, LookupError):
            continue
        for package, version in raw.items():
            if version not in found.setdefault(package, []):
                found[package].append(version)
    return {package: ", ".join(versions) for package, versions in found.items()}
