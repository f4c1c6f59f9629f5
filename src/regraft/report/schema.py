"""What a report can show: plain dicts that survive JSON, each part optional, each part checked.

Accuracies and densities are fractions in [0, 1] (shown in percent), losses are in the loss's own unit (nats
for cross-entropy), NNSTD is in [0, 1]. ``None`` stands for a number that does not exist (a NaN, say).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict, cast

from regraft.errors import InputError, suggest
from regraft.report.figures import Figure

Number = float | None


class Fact(TypedDict):
    """A headline figure: ``{"label": "Best parent", "value": "97.2 %", "note": "network 2"}``."""

    label: str
    value: str
    note: NotRequired[str]


class Curve(TypedDict):
    """One network's way through training: one accuracy for each epoch."""

    name: str
    epochs: list[float]
    accuracy: list[Number]


class Grid(TypedDict):
    """Accuracy (and loss) of each weight rule x bias rule; rows are weight rules."""

    name: str
    weights: list[str]
    biases: list[str]
    accuracy: list[list[Number]]
    loss: NotRequired[list[list[Number]]]


class Point(TypedDict):
    """One network in the plane of NNSTD to a parent and accuracy."""

    name: str
    group: str
    nnstd: float
    accuracy: float


class Reference(TypedDict):
    """An accuracy that the points are compared with, drawn as a line."""

    name: str
    accuracy: float


class Distances(TypedDict):
    """NNSTD between all pairs of networks, and what independent random topologies would have."""

    names: list[str]
    nnstd: list[list[Number]]
    expected: NotRequired[float]


class PatternOf(TypedDict):
    """Connections that leave each input unit of one network."""

    name: str
    counts: list[float]


class Pattern(TypedDict):
    """The first layer's connectivity as images of ``shape`` (height, width), row-major."""

    shape: list[int]
    networks: list[PatternOf]
    mean_image: NotRequired[list[float]]


class DensitiesOf(TypedDict):
    """One network's density of each layer."""

    name: str
    densities: list[float]


class Densities(TypedDict):
    """Layer densities of several networks."""

    layers: list[str]
    networks: list[DensitiesOf]


class ValueSet(TypedDict):
    """A set of values: how many fall into each bin, and their mean and standard deviation."""

    name: str
    edges: list[float]
    counts: list[int]
    mean: float
    std: float


class Panel(TypedDict):
    """The sets of values of one layer."""

    name: str
    sets: list[ValueSet]


class Histogram(TypedDict):
    """Distributions side by side; ``unit`` is the name of the values."""

    title: str
    caption: str
    unit: str
    panels: list[Panel]


class Table(TypedDict):
    """A table of text and numbers; numbers are shown with four significant digits."""

    title: str
    columns: list[str]
    rows: list[list[Any]]
    note: NotRequired[str]


class Results(TypedDict, total=False):
    """All that a report can show; what is missing is left out of the page.

    ``summary`` is the plain-language sentence at the top; without it one is made from the figures.
    ``generated`` is any text about when and where, shown at the foot; without it the page holds no date, so
    that equal results give equal bytes.
    """

    title: str
    summary: str
    facts: list[Fact]
    curves: list[Curve]
    grids: list[Grid]
    points: list[Point]
    reference: Reference
    distances: Distances
    pattern: Pattern
    densities: Densities
    histogram: Histogram
    tables: list[Table]
    figures: list[Figure]
    configuration: dict[str, Any]
    versions: dict[str, str]
    generated: str


def check(results: Mapping[str, Any]) -> Results:
    """``results`` after checking names, lengths and ranges.

    >>> check({"curvs": []})
    Traceback (most recent call last):
    ...
    regraft.errors.InputError: the report has no part 'curvs': did you mean 'curves'?

    Raises:
        InputError: an unknown part, a part that lacks a field, or lengths that do not fit; the message says
            where.
    """
    for name in results:
        if name not in Results.__annotations__:
            raise InputError(
                f"the report has no part {name!r}: {suggest(str(name), Results.__annotations__)}"
            )
    try:
        _check_parts(results)
    except KeyError as error:
        raise InputError(f"a part of the report lacks the field {error}") from error
    except (TypeError, AttributeError) as error:
        raise InputError(f"a part of the report has the wrong form: {error}") from error
    return cast(Results, results)


def _check_parts(results: Mapping[str, Any]) -> None:
    for i, curve in enumerate(results.get("curves", ())):
        where = f"curves[{i}] ({curve['name']!r})"
        _same(len(curve["epochs"]), len(curve["accuracy"]), where, "epochs", "accuracies")
        _finite(curve["epochs"], f"{where}: epochs")
        _numbers(curve["accuracy"], f"{where}: accuracy")
    for i, grid in enumerate(results.get("grids", ())):
        for field in ("accuracy", "loss"):
            if field in grid:
                _matrix(
                    grid[field],
                    len(grid["weights"]),
                    len(grid["biases"]),
                    f"grids[{i}] ({grid['name']!r}): {field}",
                )
    for i, point in enumerate(results.get("points", ())):
        _finite([point["nnstd"], point["accuracy"]], f"points[{i}] ({point['name']!r}, {point['group']!r})")
    if "reference" in results:
        _finite([results["reference"]["accuracy"]], f"reference {results['reference']['name']!r}")
    if "distances" in results:
        n = len(results["distances"]["names"])
        _matrix(results["distances"]["nnstd"], n, n, "distances: nnstd")
    if "pattern" in results:
        _pattern(results["pattern"])
    if "densities" in results:
        layers = results["densities"]["layers"]
        for network in results["densities"]["networks"]:
            where = f"densities of {network['name']!r}"
            _same(len(layers), len(network["densities"]), where, "layers", "densities")
            _finite(network["densities"], where)
    for panel in results["histogram"]["panels"] if "histogram" in results else ():
        for one in panel["sets"]:
            where = f"histogram {panel['name']!r}, {one['name']!r}"
            _same(len(one["counts"]) + 1, len(one["edges"]), where, "ends of bins", "edges")
            _finite([*one["edges"], *one["counts"], one["mean"], one["std"]], where)
    for i, table in enumerate(results.get("tables", ())):
        for row in table["rows"]:
            _same(
                len(table["columns"]),
                len(row),
                f"tables[{i}] ({table['title']!r})",
                "columns",
                "cells in a row",
            )


def _pattern(pattern: Mapping[str, Any]) -> None:
    if len(pattern["shape"]) != 2:
        raise InputError(f"pattern: shape is {pattern['shape']!r}, but must be [height, width]")
    size = math.prod(pattern["shape"])
    for network in pattern["networks"]:
        where = f"pattern of {network['name']!r}"
        _same(size, len(network["counts"]), where, "pixels", "counts")
        _finite(network["counts"], where)
    if "mean_image" in pattern:
        _same(size, len(pattern["mean_image"]), "pattern: mean_image", "pixels", "values")
        _finite(pattern["mean_image"], "pattern: mean_image")


def _same(a: int, b: int, where: str, what_a: str, what_b: str) -> None:
    if a != b:
        raise InputError(f"{where} has {a} {what_a} but {b} {what_b}: they must be as many")


def _matrix(rows: Sequence[Sequence[Any]], height: int, width: int, where: str) -> None:
    _same(height, len(rows), where, "names of rows", "rows")
    for row in rows:
        _same(width, len(row), where, "names of columns", "numbers in a row")
        _numbers(row, where)


def _numbers(values: Sequence[Any], where: str) -> None:
    _finite([v for v in values if v is not None], where)


def _finite(values: Sequence[Any], where: str) -> None:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"{where} holds {value!r}, but must hold finite numbers")
