"""Finding a study: by name, or in a file of the user's own."""

from __future__ import annotations

import importlib

from regraft.errors import InputError, suggest
from regraft.studies import own
from regraft.studies.papers import MODULES
from regraft.studies.study import Preset, Study


def names() -> list[str]:
    """Names of the studies that regraft brings, in reading order."""
    return list(MODULES)


def named(name: str) -> Study:
    """A study that regraft brings, or the one in a file: ``mine.py``, ``mine.py:NAME`` or ``grid.yaml``.

    Raises:
        InputError: there is none of that name, or the file is broken.
        FileError: the file cannot be read.
    """
    if own.is_path(name):
        return own.find(name)
    if name not in MODULES:
        raise InputError(f"there is no study {name!r}: {suggest(name, MODULES)}")
    studies: list[Study] = importlib.import_module(MODULES[name]).STUDIES
    return next(s for s in studies if s.name == name)


def preset(study: Study, name: str) -> Preset:
    """One of a study's presets.

    Raises:
        InputError: the study has none of that name.
    """
    if name not in study.presets:
        raise InputError(f"the study '{study.name}' has no preset {name!r}: {suggest(name, study.presets)}")
    return study.presets[name]
