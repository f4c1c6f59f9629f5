"""Checks of the figures of studies: kinds, lengths, finite numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from regraft.errors import InputError, unknown
from regraft.report.checks import finite, matrix, numbers, positive, same

Check = Callable[[Mapping[str, Any], str], None]


def check_figure(figure: Mapping[str, Any], where: str) -> None:
    """Check one figure.

    Args:
        where: what a message calls it: ``"figures[0]"``.

    Raises:
        InputError: an unknown kind, lengths that do not fit, or numbers that are not finite.
        KeyError: a field is missing.
    """
    kind = figure["kind"]
    if kind not in CHECKS:
        raise unknown("kind of figure", kind, CHECKS)
    where = f"{where} ({figure['title']!r}, {kind})"
    figure["caption"]  # every figure has one
    for level in figure.get("levels", ()):
        finite([level["value"]], f"{where}: level {level['name']!r}")
    CHECKS[kind](figure, where)


def is_empty(figure: Mapping[str, Any]) -> bool:
    """Whether there is nothing to draw, as in a study whose cells are not done.

    >>> is_empty({"kind": "lines", "series": [{"name": "a", "x": [1.0], "y": [None]}]})
    True
    """
    kind = figure["kind"]
    if kind == "lines":
        return all(v is None for s in figure["series"] for v in s["y"])
    if kind == "bars":
        return all(v is None for s in figure["sets"] for v in s["values"])
    if kind == "heatmap":
        return all(v is None for row in figure["values"] for v in row)
    return not figure[{"boxes": "boxes", "parallel": "strands", "ellipses": "clouds"}.get(kind, "pictures")]


def _lines(figure: Mapping[str, Any], where: str) -> None:
    for one in figure["series"]:
        place = f"{where}: series {one['name']!r}"
        same(len(one["x"]), len(one["y"]), place, "x", "y")
        finite(one["x"], f"{place}: x")
        numbers(one["y"], f"{place}: y")
        _spread(one, len(one["y"]), place)
        if figure.get("log_x"):
            positive(one["x"], f"{place}: x")
        if figure.get("log_y"):
            positive(one["y"], f"{place}: y")
    _ = figure["x"], figure["y"]
    if figure.get("log_y"):
        positive([level["value"] for level in figure.get("levels", ())], f"{where}: levels")


def _spread(part: Mapping[str, Any], n: int, where: str) -> None:
    if "spread" in part:
        same(n, len(part["spread"]), where, "values", "spreads")
        numbers(part["spread"], f"{where}: spread")
        for value in part["spread"]:
            if value is not None and value < 0:
                raise InputError(f"{where}: spread holds {value!r}, but a spread is not negative")


def _boxes(figure: Mapping[str, Any], where: str) -> None:
    figure["y"]
    for one in figure["boxes"]:
        place = f"{where}: box {one['name']!r}"
        ends = [one[k] for k in ("low", "q1", "median", "q3", "high")]
        finite([*ends, one["mean"], one["n"]], place)
        if ends != sorted(ends):
            raise InputError(f"{place} has {ends}, but low, q1, median, q3 and high must increase")


def _bars(figure: Mapping[str, Any], where: str) -> None:
    figure["y"]
    for one in figure["sets"]:
        place = f"{where}: set {one['name']!r}"
        same(len(figure["groups"]), len(one["values"]), place, "groups", "values")
        numbers(one["values"], place)
        _spread(one, len(one["values"]), place)
        if figure.get("log_y"):
            positive(one["values"], place)


def _parallel(figure: Mapping[str, Any], where: str) -> None:
    figure["figure"]
    axes = figure["axes"]
    for i, strand in enumerate(figure["strands"]):
        place = f"{where}: strands[{i}]"
        same(len(axes), len(strand["values"]), place, "axes", "values")
        finite([strand["figure"]], f"{place}: figure")
        for axis, value in zip(axes, strand["values"], strict=True):
            if axis["places"] is None:
                finite([value], f"{place}: {axis['name']}")
            elif value not in axis["places"]:
                raise InputError(
                    f"{place} has {value!r} on the axis {axis['name']!r}, whose places are {axis['places']!r}"
                )


def _ellipses(figure: Mapping[str, Any], where: str) -> None:
    _ = figure["x"], figure["y"]
    for one in figure["clouds"]:
        place = f"{where}: cloud {one['name']!r}"
        for field in ("mean", "low", "high"):
            if field in one or field == "mean":
                same(2, len(one[field]), f"{place}: {field}", "axes", "numbers")
                finite(one[field], f"{place}: {field}")
        finite([one["n"]], f"{place}: n")
        matrix(one["covariance"], 2, 2, f"{place}: covariance")
        finite([v for row in one["covariance"] for v in row], f"{place}: covariance")


def _heatmap(figure: Mapping[str, Any], where: str) -> None:
    _ = figure["row"], figure["column"], figure["unit"]
    matrix(figure["values"], len(figure["rows"]), len(figure["columns"]), where)
    if "limits" in figure:
        same(2, len(figure["limits"]), f"{where}: limits", "ends", "numbers")
        finite(figure["limits"], f"{where}: limits")


def _pictures(figure: Mapping[str, Any], where: str) -> None:
    shape: Sequence[Any] = figure["shape"]
    if len(shape) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in shape):
        raise InputError(f"{where}: shape is {shape!r}, but must be [height, width] in pixels")
    for one in figure["pictures"]:
        place = f"{where}: picture {one['name']!r}"
        same(math.prod(shape), len(one["values"]), place, "pixels", "values")
        finite(one["values"], place)


CHECKS: dict[str, Check] = {
    "lines": _lines,
    "boxes": _boxes,
    "bars": _bars,
    "parallel": _parallel,
    "ellipses": _ellipses,
    "heatmap": _heatmap,
    "pictures": _pictures,
}
