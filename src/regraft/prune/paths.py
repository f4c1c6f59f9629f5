"""How the density falls over the shots or rounds: (start, end, progress) -> density.

Every member begins at ``start``, ends at ``end`` exactly, and never rises.
"""

from __future__ import annotations

from typing import Protocol

from regraft.errors import unknown
from regraft.schedules import Cubic, Progress


class Path(Protocol):
    """``(start, end, progress) -> density`` after ``progress.done`` of ``progress.total`` shots."""

    def __call__(self, start: float, end: float, progress: Progress) -> float: ...


def exponential(start: float, end: float, progress: Progress) -> float:
    """start * (end / start) ** (done / total): each shot keeps the same share of what is left (Tanaka et al.
    2020, arXiv:2006.05467, algorithm 1; the lottery ticket's p ** (1 / n)).

    >>> [exponential(1.0, 0.01, Progress(i, 2)) for i in range(3)]
    [1.0, 0.1, 0.01]
    """
    if progress.done == progress.total:
        return end
    return float(start * (end / start) ** progress.fraction("exponential"))


def linear(start: float, end: float, progress: Progress) -> float:
    """start + (end - start) * done / total: each shot removes the same number of connections.

    >>> [linear(1.0, 0.5, Progress(i, 2)) for i in range(3)]
    [1.0, 0.75, 0.5]
    """
    if progress.done == progress.total:
        return end
    return start + (end - start) * progress.fraction("linear")


def cubic(start: float, end: float, progress: Progress) -> float:
    """end + (start - end) * (1 - done / total)^3 (Zhu and Gupta 2017, arXiv:1710.01878, eq. 1).

    >>> [cubic(1.0, 0.0625, Progress(i, 2)) for i in range(3)]
    [1.0, 0.1796875, 0.0625]
    """
    return Cubic(start, end)(progress)


PATHS: dict[str, Path] = {"exponential": exponential, "linear": linear, "cubic": cubic}


def by_name(name: str) -> Path:
    """The density path called ``name``, or an error with the nearest names.

    >>> by_name("linear") is linear
    True
    """
    if name not in PATHS:
        raise unknown("density path", name, PATHS)
    return PATHS[name]
