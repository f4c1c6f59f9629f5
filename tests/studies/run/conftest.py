"""A study that loads in any process, and its table as plain values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regraft.studies import Study
from regraft.studies.own import find
from regraft.studies.run import Folder
from regraft.studies.tables import table


@pytest.fixture
def dice_file() -> Path:
    """The file of the study."""
    return Path(__file__).parent / "dice_study.py"


@pytest.fixture
def dice(dice_file: Path) -> Study:
    """The study."""
    return find(str(dice_file))


@pytest.fixture
def contents() -> Callable[[Study, str, Path], list[dict[str, Any]]]:
    """All that a study's cells say, in the study's order: rows, epochs, and the bytes of networks."""

    def read(study: Study, preset: str, folder: Path) -> list[dict[str, Any]]:
        found = table(study, preset, Folder(folder))
        return [
            {
                "key": r.key,
                "rows": list(r.rows),
                "epochs": list(r.epochs),
                "networks": {p.name: p.read_bytes() for p in sorted(r.folder.glob("*.safetensors"))},
            }
            for r in found.results
        ]

    return read
