"""Figures of studies: plain dicts, numbers in the unit that is shown, aggregated before they come here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np

from regraft.errors import InputError

Value = float | None


class Series(TypedDict):
    """One line: ``y`` at ``x``, and half the height of its band where there is one."""

    name: str
    x: list[float]
    y: list[Value]
    spread: NotRequired[list[Value]]


class Level(TypedDict):
    """A horizontal line."""

    name: str
    value: float


class Lines(TypedDict):
    """Curves over epochs, accuracy against density (``log_x``), learned curves."""

    kind: Literal["lines"]
    title: str
    caption: str
    x: str
    y: str
    series: list[Series]
    log_x: NotRequired[bool]
    log_y: NotRequired[bool]
    levels: NotRequired[list[Level]]


class Box(TypedDict):
    """Five numbers and a mean; made by ``box``."""

    name: str
    low: float
    q1: float
    median: float
    q3: float
    high: float
    mean: float
    n: int


class Boxes(TypedDict):
    """Box plots side by side."""

    kind: Literal["boxes"]
    title: str
    caption: str
    y: str
    boxes: list[Box]
    levels: NotRequired[list[Level]]


class BarSet(TypedDict):
    """One colour of bars: a value for each group."""

    name: str
    values: list[Value]
    spread: NotRequired[list[Value]]


class Bars(TypedDict):
    """Grouped bars, such as Jaccard distances or times."""

    kind: Literal["bars"]
    title: str
    caption: str
    y: str
    groups: list[str]
    sets: list[BarSet]
    log_y: NotRequired[bool]


class Axis(TypedDict):
    """An axis of parallel coordinates: the names of its places, or None for numbers."""

    name: str
    places: list[str] | None


class Strand(TypedDict):
    """A line across all axes (a place's name or a number on each) and the figure that colours it."""

    values: list[str | float]
    figure: float


class Parallel(TypedDict):
    """Parallel coordinates."""

    kind: Literal["parallel"]
    title: str
    caption: str
    figure: str
    axes: list[Axis]
    strands: list[Strand]


class Ellipse(TypedDict):
    """A cloud by its mean and covariance, and the ends of its points; made by ``ellipse``."""

    name: str
    n: int
    mean: list[float]
    covariance: list[list[float]]
    low: NotRequired[list[float]]
    high: NotRequired[list[float]]


class Ellipses(TypedDict):
    """Clouds as ellipses of two standard deviations, such as NNSTD against accuracy."""

    kind: Literal["ellipses"]
    title: str
    caption: str
    x: str
    y: str
    clouds: list[Ellipse]
    levels: NotRequired[list[Level]]


class Heatmap(TypedDict):
    """A matrix as colours with its numbers; ``limits`` are the ends of the colours where several heatmaps
    are to be compared, else those of its own values."""

    kind: Literal["heatmap"]
    title: str
    caption: str
    rows: list[str]
    columns: list[str]
    values: list[list[Value]]
    row: str
    column: str
    unit: str
    limits: NotRequired[list[float]]


class Picture(TypedDict):
    """One image, row-major."""

    name: str
    values: list[float]


class Pictures(TypedDict):
    """Images side by side on one scale, such as first-layer connectivity patterns."""

    kind: Literal["pictures"]
    title: str
    caption: str
    shape: list[int]
    pictures: list[Picture]


Figure = Lines | Boxes | Bars | Parallel | Ellipses | Heatmap | Pictures


def box(name: str, values: Sequence[float]) -> Box:
    """The numbers of a box plot: whiskers at the lowest and highest value.

    >>> box("a", [1.0, 2.0, 3.0, 4.0, 5.0])["q3"]
    4.0

    Raises:
        InputError: no values.
    """
    if not len(values):
        raise InputError(f"the box {name!r} has no values")
    low, q1, median, q3, high = (float(q) for q in np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
    return {
        "name": name, "low": low, "q1": q1, "median": median, "q3": q3, "high": high,
        "mean": float(np.mean(values)), "n": len(values),
    }  # fmt: skip


def ellipse(name: str, x: Sequence[float], y: Sequence[float]) -> Ellipse:
    """Mean and covariance of a cloud.

    >>> ellipse("a", [0.0, 2.0], [1.0, 1.0])["mean"]
    [1.0, 1.0]

    Raises:
        InputError: no points, or unequally many coordinates.
    """
    if len(x) != len(y) or not len(x):
        raise InputError(
            f"the cloud {name!r} has {len(x)} x and {len(y)} y, but needs equally many, one or more"
        )
    points: Any = np.array([x, y], dtype=float)
    covariance = np.cov(points, bias=True) if len(x) > 1 else np.zeros((2, 2))
    return {
        "name": name, "n": len(x), "mean": points.mean(axis=1).tolist(), "covariance": covariance.tolist(),
        "low": points.min(axis=1).tolist(), "high": points.max(axis=1).tolist(),
    }  # fmt: skip
