"""One cell from its configuration to files in a directory; the same in every process."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from regraft.checkpoint import save
from regraft.errors import InputError
from regraft.files import versions
from regraft.studies.study import Outcome, Result, Row, Step, Work

NAMES = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."


@dataclass(frozen=True)
class Job:
    """What a process needs to know to do a cell.

    Attributes:
        key, config: the cell's.
        needs: keys of the cells that it needs.
    """

    key: str
    config: Mapping[str, Any]
    needs: tuple[str, ...] = ()


def perform(step: Step, job: Job, inputs: Sequence[Result], into: Path, data_dir: Path | None = None) -> None:
    """Do a cell and write its result into the directory ``into``.

    Raises:
        InputError: the step returned something that cannot be kept.
        Exception: whatever the step raises.
    """
    started = datetime.now(UTC)
    clock = time.perf_counter()
    outcome = step.run(Work(job.config, inputs, data_dir))
    seconds = time.perf_counter() - clock
    if not isinstance(outcome, Outcome):
        raise InputError(
            f"the step '{step.name}' returned {type(outcome).__name__}, but must return an Outcome"
        )
    for name, model in outcome.models.items():
        if not name or set(name) - set(NAMES) or name.startswith("."):
            raise InputError(
                f"the step '{step.name}' names a network {name!r}: use letters, digits, '-', '_', '.'"
            )
        save(model, into / f"{name}.safetensors")
    text = {
        "key": job.key,
        "step": step.name,
        "version": step.version,
        "config": dict(job.config),
        "needs": list(job.needs),
        "rows": [plain(row, step.name) for row in outcome.rows],
        "epochs": [plain(row, step.name) for row in outcome.epochs],
        "seconds": seconds,
        "started": started.isoformat(timespec="seconds"),
        "versions": versions(),
    }
    (into / "result.json").write_text(json.dumps(text, allow_nan=False), encoding="utf-8")


def plain(row: Row, where: str) -> Row:
    """A row of text, numbers, truth values and None; numbers that are not finite become None.

    >>> plain({"a": 1, "b": float("nan")}, "step")
    {'a': 1, 'b': None}

    Raises:
        InputError: a value of another type; the message names it.
    """
    made: Row = {}
    for name, value in row.items():
        if isinstance(value, float):
            made[name] = float(value) if math.isfinite(value) else None
        elif value is None or isinstance(value, str | int):
            made[name] = value
        else:
            raise InputError(
                f"the step '{where}' returned {name!r} = {value!r} ({type(value).__name__}): rows hold text, "
                "numbers, truth values and None; use float() or int() for numbers of other libraries"
            )
    return made
