"""Clouds of points in a plane and their ellipses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.report import svg
from regraft.report.axes import level_keys, linear_axis, paint_levels
from regraft.report.chart import MARKERS, Chart, Key, colour, dash_style, dashes, number, percent, plain
from regraft.report.figures import Ellipse, Ellipses
from regraft.report.schema import Point, Reference

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEWEST = 5
"""Points of a cloud that has an ellipse."""


def scatter(points: Sequence[Point], reference: Reference | None = None, name: str = "points") -> Chart:
    """NNSTD against accuracy: a colour, a shape and a two-standard-deviation ellipse for each group, and a
    line at the accuracy of ``reference``."""
    groups = list(dict.fromkeys(p["group"] for p in points))
    label = (
        f"Scatter chart: test accuracy against NNSTD of {len(points)} networks in {len(groups)} groups: "
        + ", ".join(groups)
        + "."
    )

    def paint(figure: Figure) -> None:
        ax = figure.add_subplot()
        for i, group in enumerate(groups):
            x = np.array([p["nnstd"] for p in points if p["group"] == group])
            y = np.array([100 * p["accuracy"] for p in points if p["group"] == group])
            ax.scatter(x, y, s=22, marker=MARKERS[i % 8], color=colour(i), alpha=0.75, linewidths=0)
            if len(x) >= FEWEST:
                _outline(ax, [x.mean(), y.mean()], np.cov(np.stack([x, y])), color=colour(i), linewidth=1.1)
        if reference is not None:
            ax.axhline(100 * reference["accuracy"], color=svg.MUTED, linestyle=(0, (6, 3)))
        ax.set_xlabel("NNSTD to a parent (0 equal, 1 disjoint)")
        ax.set_ylabel("Test accuracy (%)")
        ax.locator_params(axis="x", nbins=5)
        # ellipses may reach beyond what an accuracy can be; the axis need not
        seen = [100 * p["accuracy"] for p in (*points, *([] if reference is None else [reference]))]
        margin = 0.08 * (max(seen) - min(seen)) + 1
        ax.set_ylim(max(min(seen) - margin, -2), min(max(seen) + margin, 102))

    rows = []
    for group in groups:
        mine = [p for p in points if p["group"] == group]
        distance = float(np.mean([p["nnstd"] for p in mine]))
        scores = [p["accuracy"] for p in mine]
        figures = [float(np.mean(scores)), min(scores), max(scores)]
        rows.append([group, len(mine), number(distance), *map(percent, figures)])
    legend = [Key(g, i % 8 + 1, shape=MARKERS[i % 8]) for i, g in enumerate(groups)]
    if reference is not None:
        legend.append(Key(f"{reference['name']}: {percent(reference['accuracy'])} %", 0, "6 3"))
    columns = ["Group", "Marks", "Mean NNSTD", "Mean accuracy (%)", "Lowest", "Highest"]
    return Chart(
        "Distance to the parents against accuracy",
        "Each mark is one network and one of its parents; an ellipse covers two standard deviations.",
        svg.draw(name, paint, 3.4, label),
        {"title": "NNSTD and test accuracy by group", "columns": columns, "rows": rows},
        legend,
    )


def ellipses(part: Ellipses, name: str) -> Chart:
    """Each cloud as its mean and an ellipse of two standard deviations; small clouds have their mean only."""
    clouds, levels = part["clouds"], part.get("levels", [])
    said = "; ".join(f"{c['name']} around {number(c['mean'][0])}, {number(c['mean'][1])}" for c in clouds[:8])
    more = f"; and {len(clouds) - 8} more" if len(clouds) > 8 else ""
    label = f"Ellipses: {part['y']} against {part['x']} of {len(clouds)} groups: {said}{more}."

    def paint(figure: Figure) -> None:
        ax = figure.add_subplot()
        for i, cloud in enumerate(clouds):
            covariance = np.array(cloud["covariance"], dtype=float)
            if cloud["n"] >= FEWEST:
                look = {"linestyle": dash_style(dashes(i)), "linewidth": 1.4}
                _outline(ax, cloud["mean"], covariance, color=colour(i), fill=True, **look)
            x, y = cloud["mean"]
            ax.plot([x], [y], marker=MARKERS[i % 8], color=colour(i), markersize=6.5, markeredgewidth=0)
        paint_levels(ax, levels)
        (left, right), (bottom, top) = (_span([_reach(c, k) for c in clouds]) for k in (0, 1))
        values = [level["value"] for level in levels]
        bottom, top = _span([(bottom, top), *((v, v) for v in values)], margin=0.03 if values else 0.0)
        if "%" in part["y"] and all(_within(c, 0, 100) for c in clouds):
            # an ellipse may reach beyond what a share can be; the axis need not
            bottom, top = max(bottom, -2), min(top, 102)
        ax.set_xlim(left, right)
        ax.set_ylim(bottom, top)
        ax.set_xlabel(part["x"])
        ax.set_ylabel(part["y"])
        linear_axis(ax.xaxis)

    columns = [
        "Group",
        "Points",
        f"{part['x']}: mean",
        "spread",
        f"{part['y']}: mean",
        "spread",
        "Correlation",
    ]
    return Chart(
        part["title"],
        part["caption"],
        svg.draw(name, paint, 3.5, label),
        {"title": part["title"], "columns": columns, "rows": [_row(c) for c in clouds]},
        [
            *(Key(c["name"], i % 8 + 1, dashes(i), marker=MARKERS[i % 8]) for i, c in enumerate(clouds)),
            *level_keys(levels),
        ],
    )


def _row(cloud: Ellipse) -> list[str | int]:
    (xx, xy), (_, yy) = cloud["covariance"]
    x, y = cloud["mean"]
    spread_x, spread_y = math.sqrt(max(xx, 0.0)), math.sqrt(max(yy, 0.0))
    together = xy / (spread_x * spread_y) if spread_x and spread_y else None
    return [cloud["name"], cloud["n"], plain(x), plain(spread_x), plain(y), plain(spread_y), plain(together)]


def _reach(cloud: Ellipse, axis: int) -> tuple[float, float]:
    """How far a cloud is drawn on an axis: two standard deviations, or its mean alone."""
    mean = cloud["mean"][axis]
    half = 2 * math.sqrt(max(cloud["covariance"][axis][axis], 0.0)) if cloud["n"] >= FEWEST else 0.0
    return mean - half, mean + half


def _within(cloud: Ellipse, low: float, high: float) -> bool:
    """Whether all points are known to lie between these heights."""
    return "low" in cloud and "high" in cloud and low <= cloud["low"][1] and cloud["high"][1] <= high


def _span(ranges: Sequence[tuple[float, float]], margin: float = 0.07) -> tuple[float, float]:
    """The limits of an axis that shows all these ranges."""
    low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
    extra = margin * (high - low) or (0.0 if high > low else 0.05 * abs(high) or 1.0)
    return low - extra, high + extra


def _outline(
    ax: Axes, mean: Sequence[float], covariance: Any, *, color: str, fill: bool = False, **look: Any
) -> None:
    """Two standard deviations around a mean, unless the cloud is flat.

    The axes differ in unit, so the shape is found in units of each axis' own spread.
    """
    spread = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    if not (spread > 1e-9).all():
        return
    values, vectors = np.linalg.eigh(covariance / np.outer(spread, spread))
    angle = np.linspace(0, 2 * math.pi, 73)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    x, y = (vectors * (2 * np.sqrt(np.maximum(values, 0)))) @ circle * spread[:, None]
    if fill:
        ax.fill(mean[0] + x, mean[1] + y, color=color, alpha=0.08, linewidth=0)
    ax.plot(mean[0] + x, mean[1] + y, color=color, alpha=0.9, **look)
