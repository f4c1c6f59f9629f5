"""Lines, points and bars: training, distance against accuracy, densities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.report import svg
from regraft.report.chart import DASHES, MARKERS, Chart, Key, colour, number, percent, short
from regraft.report.schema import Curve, Densities, Number, Point, Reference

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MOST_ROWS = 100
"""Epochs in the table of a long training: evenly apart, and always the last."""


def curves(parts: Sequence[Curve], name: str = "curves") -> Chart:
    """Test accuracy against epochs, a line for each network.

    Up to eight networks have a colour each; more are drawn thin with their mean above them.
    """
    many = len(parts) > len(svg.SERIES)
    ends = [a[-1] for a in (c["accuracy"] for c in parts) if a and a[-1] is not None]
    spread = f", ending between {percent(min(ends))} and {percent(max(ends))} %" if ends else ""
    label = f"Line chart: test accuracy of {len(parts)} networks against epochs{spread}."

    def paint(figure: Figure) -> None:
        ax = figure.add_subplot()
        for i, curve in enumerate(parts):
            look: dict[str, Any] = {"color": svg.MUTED, "alpha": 0.45, "linewidth": 0.8}
            if not many:
                look = {"color": colour(i), "dashes": _dashes(i), "alpha": 0.95}
            if len(curve["epochs"]) == 1:
                look |= {"marker": "o"}
            ax.plot(curve["epochs"], [_times100(v) for v in curve["accuracy"]], **look)
        if many:
            ax.plot(*_mean_curve(parts), color=svg.SERIES[0], linewidth=2.4)
        ax.set_xlabel("Epoch")
        ax.set_ylabel("Test accuracy (%)")
        _whole_ticks(ax)

    legend = [Key(c["name"], i % 8 + 1, DASHES[i % len(DASHES)]) for i, c in enumerate(parts)]
    if many:
        legend = [Key("mean", 1), Key(f"each of {len(parts)} networks", 0)]
    epochs = sorted({e for c in parts for e in c["epochs"]})
    by_epoch = [dict(zip(c["epochs"], c["accuracy"], strict=True)) for c in parts]
    apart = -(-len(epochs) // MOST_ROWS)
    told = [e for i, e in enumerate(epochs, start=1) if i % apart == 0 or i == len(epochs)]
    rows = [[f"{e:g}", *(percent(at.get(e)) for at in by_epoch)] for e in told]
    return Chart(
        "Accuracy while training",
        "Each line is one network; its topology changes as it trains.",
        svg.draw(name, paint, 3.1, label),
        {"title": "Test accuracy (%)", "columns": ["Epoch", *(c["name"] for c in parts)], "rows": rows},
        legend,
    )


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
            _ellipse(ax, x, y, colour(i))
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
        rows.append(
            [
                group,
                len(mine),
                number(distance),
                percent(float(np.mean(scores))),
                percent(min(scores)),
                percent(max(scores)),
            ]
        )
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


def _ellipse(ax: Axes, x: Any, y: Any, edge: str) -> None:
    """Two standard deviations around the mean of a cloud of at least five points that is not flat.

    The axes differ in unit, so its shape is found in units of each axis' own spread.
    """
    if len(x) < 5:
        return
    spread = np.array([x.std(), y.std()])
    if not (spread > 1e-9).all():
        return
    values, vectors = np.linalg.eigh(np.cov(np.stack([x, y]) / spread[:, None]))
    angle = np.linspace(0, 2 * math.pi, 73)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    outline = (vectors * (2 * np.sqrt(np.maximum(values, 0)))) @ circle * spread[:, None]
    ax.plot(x.mean() + outline[0], y.mean() + outline[1], color=edge, linewidth=1.1, alpha=0.9)


def densities(part: Densities, name: str = "densities") -> Chart:
    """Density of each layer as bars, one for each network."""
    layers, networks = part["layers"], part["networks"]
    label = f"Bar chart: density in percent of {len(layers)} layers of {len(networks)} networks."
    step = 0.8 / max(len(networks), 1)

    def paint(figure: Figure) -> None:
        ax = figure.add_subplot()
        for i, network in enumerate(networks):
            at = np.arange(len(layers)) - 0.4 + step * (i + 0.5)
            wide = [100 * d for d in network["densities"]]
            ax.barh(at, wide, height=step * 0.86, color=colour(i))
            for y, value in zip(at, wide, strict=True):
                ax.annotate(
                    number(value), (value, y), (3, 0), textcoords="offset points", va="center", fontsize=9
                )
        ax.set_yticks(range(len(layers)), labels=[short(name) for name in layers])
        ax.invert_yaxis()
        ax.margins(x=0.12)
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel("Density (%): connections that exist of all possible")

    rows = [[layer, *(percent(n["densities"][i], 2) for n in networks)] for i, layer in enumerate(layers)]
    bars = max(len(layers) * len(networks), 1)
    return Chart(
        "Layer densities",
        "Share of the possible connections of each layer that exist.",
        svg.draw(name, paint, min(0.9 + 0.2 * bars + 0.1 * len(layers), 14), label),
        {"title": "Density (%)", "columns": ["Layer", *(n["name"] for n in networks)], "rows": rows},
        [Key(n["name"], i % 8 + 1, shape="bar") for i, n in enumerate(networks)],
    )


def _times100(value: Number) -> float:
    return math.nan if value is None else 100 * value


def _dashes(i: int) -> Any:
    return [float(x) for x in DASHES[i % len(DASHES)].split()] or (None, None)


def _mean_curve(parts: Sequence[Curve]) -> tuple[list[float], list[float]]:
    at: dict[float, list[float]] = {}
    for curve in parts:
        for epoch, value in zip(curve["epochs"], curve["accuracy"], strict=True):
            if value is not None:
                at.setdefault(epoch, []).append(100 * value)
    epochs = sorted(at)
    return epochs, [float(np.mean(at[e])) for e in epochs]


def _whole_ticks(ax: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
