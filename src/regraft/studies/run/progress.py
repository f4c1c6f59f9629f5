"""How far a study is, and how long the rest may take."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from regraft.studies.study import Cell


@dataclass
class Progress:
    """Counts of a run; ``remaining`` estimates from the mean time of each step's finished cells.

    Attributes:
        total: cells of the study, with those that were there before.
        before: cells that were there before.
        done: cells done in this run.
        failed: cells that failed in this run or before and were not tried again.
        blocked: cells that need one that failed.
        workers: cells that are done at once.
    """

    total: int
    before: int = 0
    done: int = 0
    failed: int = 0
    blocked: int = 0
    workers: int = 1
    started: float = field(default_factory=time.monotonic)
    _seconds: Counter[str] = field(default_factory=Counter)
    _count: Counter[str] = field(default_factory=Counter)
    _left: Counter[str] = field(default_factory=Counter)

    def expect(self, cells: Iterable[Cell]) -> None:
        """Cells that this run is to do."""
        self._left.update(cell.step.name for cell in cells)

    def note(self, step: str, seconds: float) -> None:
        """A cell of this step is done."""
        self.done += 1
        self._left[step] -= 1
        self._count[step] += 1
        self._seconds[step] += seconds  # type: ignore[assignment]

    def drop(self, step: str) -> None:
        """A cell of this step will not be done."""
        self._left[step] -= 1

    def mean(self, step: str) -> float | None:
        """Mean seconds of this step's cells; None before the first."""
        return self._seconds[step] / self._count[step] if self._count[step] else None

    @property
    def ended(self) -> int:
        """Cells of which nothing more is to come."""
        return self.before + self.done + self.failed + self.blocked

    def remaining(self) -> float | None:
        """Seconds that the rest may take; None before the first cell is done.

        >>> progress = Progress(total=4, workers=2)
        >>> progress.remaining() is None
        True
        """
        known = sum(self._count.values())
        if not known:
            return None
        overall = sum(self._seconds.values()) / known
        rest = sum(
            left * (overall if (m := self.mean(step)) is None else m) for step, left in self._left.items()
        )
        return rest / self.workers
