"""Lines: accuracy while training, learned curves, accuracy against density."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.report import svg
from regraft.report.axes import level_keys, linear_axis, log_axis, paint_levels
from regraft.report.chart import MARKERS, Chart, Key, colour, dash_style, dashes, number, percent, plain
from regraft.report.figures import Lines, Series
from regraft.report.schema import Curve, Number, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MOST_ROWS = 100
"""Places in the table of a long line: evenly apart, and always the last."""

MARKED = 16
"""Lines with no more points than this have a mark on each."""


def curves(parts: Sequence[Curve], name: str = "curves") -> Chart:
    """Test accuracy against epochs, a line for each network.

    Up to eight networks have a colour each; more are drawn thin with their mean above them.
    """
    many = len(parts) > len(svg.SERIES)
    ends = [a[-1] for a in (c["accuracy"] for c in parts) if a and a[-1] is not None]
    spread = f", ending between {percent(min(ends))} and {percent(max(ends))} %" if ends else ""
    label = f"Line chart: test accuracy of {len(parts)} networks against epochs{spread}."
    series: list[Series] = [
        {"name": c["name"], "x": c["epochs"], "y": [None if v is None else 100 * v for v in c["accuracy"]]}
        for c in parts
    ]

    def paint(figure: Figure) -> None:
        ax = figure.add_subplot()
        for i, one in enumerate(series):
            look: dict[str, Any] = {"color": svg.MUTED, "alpha": 0.45, "linewidth": 0.8}
            if not many:
                look = {"color": colour(i), "linestyle": dash_style(dashes(i)), "alpha": 0.95}
            if len(one["x"]) == 1:
                look |= {"marker": "o"}
            ax.plot(one["x"], _gaps(one["y"]), **look)
        if many:
            ax.plot(*_mean_line(series), color=svg.SERIES[0], linewidth=2.4)
        ax.set_xlabel("Epoch")
        ax.set_ylabel("Test accuracy (%)")
        linear_axis(ax.xaxis, whole=True)

    legend = [Key(c["name"], i % 8 + 1, dashes(i)) for i, c in enumerate(parts)]
    if many:
        legend = [Key("mean", 1), Key(f"each of {len(parts)} networks", 0)]
    return Chart(
        "Accuracy while training",
        "Each line is one network; its topology changes as it trains.",
        svg.draw(name, paint, 3.1, label),
        _table("Test accuracy (%)", "Epoch", series, lambda v, _: "\N{EN DASH}" if v is None else f"{v:.1f}"),
        legend,
    )


def lines(part: Lines, name: str) -> Chart:
    """Curves with bands and levels on linear or logarithmic axes.

    Lines differ by colour, dashes and, where they have few points, by marks.
    """
    series, levels = part["series"], part.get("levels", [])
    marked = all(len(s["x"]) <= MARKED for s in series)
    said = "; ".join(f"{s['name']} {_ends(s)}" for s in series[:8])
    more = f"; and {len(series) - 8} more" if len(series) > 8 else ""
    label = f"Line chart: {part['y']} against {part['x']}. {said}{more}."

    def paint(figure: Figure) -> None:
        ax = figure.add_subplot()
        for i, one in enumerate(series):
            y = np.array(_gaps(one["y"]))
            alone = len(one["x"]) == 1
            ax.plot(
                one["x"], y, color=colour(i), linestyle=dash_style(dashes(i)), alpha=0.95, linewidth=1.6,
                marker=MARKERS[i % 8] if marked or alone else None, markersize=4.5, markeredgewidth=0,
            )  # fmt: skip
            if "spread" in one:
                _band(ax, one, y, colour(i), bool(part.get("log_y")))
        paint_levels(ax, levels)
        ax.set_xlabel(part["x"])
        ax.set_ylabel(part["y"])
        for axis, log in ((ax.xaxis, part.get("log_x")), (ax.yaxis, part.get("log_y"))):
            if log:
                log_axis(axis)
        if not part.get("log_x"):
            linear_axis(ax.xaxis, whole=all(x == round(x) for s in series for x in s["x"]))

    legend = [
        Key(s["name"], i % 8 + 1, dashes(i), marker=MARKERS[i % 8] if marked else "")
        for i, s in enumerate(series)
    ]
    return Chart(
        part["title"],
        part["caption"],
        svg.draw(name, paint, 3.2, label),
        _table(f"{part['title']}: {part['y']}", part["x"], series, plain),
        [*legend, *level_keys(levels)],
    )


def _band(ax: Axes, one: Series, y: Any, shade: str, log: bool) -> None:
    half = np.array(_gaps(one["spread"]))
    low, high = y - half, y + half
    if log and np.isfinite(y).any():
        # a band that reaches below zero ends where the picture does
        low = np.where(low > 0, low, 0.5 * np.nanmin(y))
    if len(one["x"]) == 1:
        ax.errorbar(one["x"], y, yerr=[y - low, high - y], color=shade, linewidth=1.2, capsize=3)
    else:
        ax.fill_between(one["x"], low, high, color=shade, alpha=0.16, linewidth=0)


def _ends(one: Series) -> str:
    """Where a line starts and ends, in words."""
    known = [(x, y) for x, y in zip(one["x"], one["y"], strict=True) if y is not None]
    if not known:
        return "has no figures"
    (x0, y0), (x1, y1) = known[0], known[-1]
    if len(known) == 1:
        return f"is {number(y0)} at {x0:g}"
    return f"goes from {number(y0)} at {x0:g} to {number(y1)} at {x1:g}"


def _table(title: str, x: str, series: Sequence[Series], write: Any) -> Table:
    """A row for each place on the x axis, thinned out where there are many."""
    places = sorted({at for s in series for at in s["x"]})
    found = [
        dict(zip(s["x"], zip(s["y"], s.get("spread", [None] * len(s["y"])), strict=True), strict=True))
        for s in series
    ]
    apart = max(-(-len(places) // MOST_ROWS), 1)
    told = [at for i, at in enumerate(places, start=1) if i % apart == 0 or i == len(places)]
    rows = [[f"{at:g}", *(write(*s.get(at, (None, None))) for s in found)] for at in told]
    return {"title": title, "columns": [x, *(s["name"] for s in series)], "rows": rows}


def _gaps(values: Sequence[Number]) -> list[float]:
    return [math.nan if v is None else v for v in values]


def _mean_line(series: Sequence[Series]) -> tuple[list[float], list[float]]:
    at: dict[float, list[float]] = {}
    for one in series:
        for x, y in zip(one["x"], one["y"], strict=True):
            if y is not None:
                at.setdefault(x, []).append(y)
    places = sorted(at)
    return places, [float(np.mean(at[x])) for x in places]
