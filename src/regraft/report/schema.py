"""What a report can show: plain dicts that survive JSON, each part optional, each part checked.

Accuracies and densities are fractions in [0, 1] (shown in percent), losses are in the loss's own unit (nats
for cross-entropy), NNSTD is in [0, 1]. ``None`` stands for a number that does not exist (a NaN, say).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict, cast

from regraft.errors import InputError, suggest
from regraft.report.checks import finite, matrix, numbers, same
from regraft.report.figure_checks import check_figure
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
    """A table of text, numbers and ``Marked`` text; numbers are shown with four significant digits.

    ``heading`` is that of the section in which it stands, "Results" without one; a ``sortable`` one can be
    sorted and filtered in the browser.
    """

    title: str
    columns: list[str]
    rows: list[list[Any]]
    note: NotRequired[str]
    heading: NotRequired[str]
    sortable: NotRequired[bool]


class Marked(TypedDict):
    """Text in a cell of a table that is a link to another page of the same report, or a verdict."""

    text: str
    href: NotRequired[str]
    mark: NotRequired[Literal["yes", "no", "none"]]


class Link(TypedDict):
    """A link to another page of the same report."""

    text: str
    href: str


class Remarks(TypedDict):
    """A section of sentences."""

    title: str
    points: list[str]


class Results(TypedDict, total=False):
    """All that a report can show; what is missing is left out of the page.

    ``summary`` is the plain-language sentence at the top; without it one is made from the figures.
    ``generated`` is any text about when and where, shown at the foot; without it the page holds no date, so
    that equal results give equal bytes. ``up`` links to the page above this one, ``notice`` is what a reader
    must know before all else, ``about`` stands below the summary and ``command`` is what made the results.
    """

    title: str
    up: Link
    subtitle: str
    notice: str
    summary: str
    about: str
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
    remarks: list[Remarks]
    command: str
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
        same(len(curve["epochs"]), len(curve["accuracy"]), where, "epochs", "accuracies")
        finite(curve["epochs"], f"{where}: epochs")
        numbers(curve["accuracy"], f"{where}: accuracy")
    for i, grid in enumerate(results.get("grids", ())):
        for field in ("accuracy", "loss"):
            if field in grid:
                matrix(
                    grid[field],
                    len(grid["weights"]),
                    len(grid["biases"]),
                    f"grids[{i}] ({grid['name']!r}): {field}",
                )
    for i, point in enumerate(results.get("points", ())):
        finite([point["nnstd"], point["accuracy"]], f"points[{i}] ({point['name']!r}, {point['group']!r})")
    if "reference" in results:
        finite([results["reference"]["accuracy"]], f"reference {results['reference']['name']!r}")
    if "distances" in results:
        n = len(results["distances"]["names"])
        matrix(results["distances"]["nnstd"], n, n, "distances: nnstd")
    if "pattern" in results:
        _pattern(results["pattern"])
    if "densities" in results:
        layers = results["densities"]["layers"]
        for network in results["densities"]["networks"]:
            where = f"densities of {network['name']!r}"
            same(len(layers), len(network["densities"]), where, "layers", "densities")
            finite(network["densities"], where)
    for panel in results["histogram"]["panels"] if "histogram" in results else ():
        for one in panel["sets"]:
            where = f"histogram {panel['name']!r}, {one['name']!r}"
            same(len(one["counts"]) + 1, len(one["edges"]), where, "ends of bins", "edges")
            finite([*one["edges"], *one["counts"], one["mean"], one["std"]], where)
    for remarks in results.get("remarks", ()):
        if isinstance(remarks["points"], str) or not all(isinstance(p, str) for p in remarks["points"]):
            raise InputError(f"remarks {remarks['title']!r}: points must be a list of sentences")
    if "up" in results:
        _ = results["up"]["text"], results["up"]["href"]
    for i, figure in enumerate(results.get("figures", ())):
        check_figure(figure, f"figures[{i}]")
    for i, table in enumerate(results.get("tables", ())):
        for row in table["rows"]:
            same(
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
        same(size, len(network["counts"]), where, "pixels", "counts")
        finite(network["counts"], where)
    if "mean_image" in pattern:
        same(size, len(pattern["mean_image"]), "pattern: mean_image", "pixels", "values")
        finite(pattern["mean_image"], "pattern: mean_image")
