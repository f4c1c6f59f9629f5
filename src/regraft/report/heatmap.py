"""Heatmaps: weight rule x bias rule, and the distances between networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from regraft.report import svg
from regraft.report.chart import NOTHING, Chart, number, percent, plain, short
from regraft.report.figures import Heatmap
from regraft.report.schema import Distances, Grid, Number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MOST_COLUMNS = 8
"""More cells in a row have no room for their numbers; a colour bar stands beside them instead."""


MOST_ROWS = 12
"""More rows are less tall."""


def grid(part: Grid, metric: str, limits: tuple[float, float], name: str) -> Chart:
    """Weight rule x bias rule as a heatmap with the number in each cell.

    Args:
        metric: ``"accuracy"`` (shown in percent) or ``"loss"``.
        limits: ends of the colour scale, shared by the grids that are compared.
    """
    values = part["accuracy"] if metric == "accuracy" else part["loss"]
    write = percent if metric == "accuracy" else number
    unit = "Test accuracy (%)" if metric == "accuracy" else "Test loss"
    weights, biases = part["weights"], part["biases"]
    cells = [
        (v, w, b)
        for row, w in zip(values, weights, strict=True)
        for v, b in zip(row, biases, strict=True)
        if v is not None
    ]
    best = (max if metric == "accuracy" else min)(cells, default=None)
    found = f", best {write(best[0])} with weights by {best[1]} and biases by {best[2]}" if best else ""
    size = f"{len(weights)} weight rules by {len(biases)} bias rules"
    label = f"Heatmap: {unit.lower()} of {size}, {part['name']}{found}."

    def paint(figure: Figure) -> None:
        ax = figure.add_subplot()
        heatmap(ax, values, weights, biases, write, limits, log=metric == "loss")
        ax.set_xlabel("Bias rule")
        ax.set_ylabel("Weight rule")

    rows = [[w, *(write(v) for v in row)] for w, row in zip(weights, values, strict=True)]
    caption = f"{unit}; brighter is better" + (", on a logarithmic scale." if metric == "loss" else ".")
    return Chart(
        f"{unit.removesuffix(' (%)')}, {part['name']}",
        caption,
        svg.draw(name, paint, _height(weights, biases) + 0.25, label),
        {"title": f"{unit}, {part['name']}", "columns": ["Weight rule", *biases], "rows": rows},
    )


def matrix(part: Heatmap, name: str) -> Chart:
    """A study's own matrix, with the number in each cell where there is room."""
    rows, columns, values = part["rows"], part["columns"], part["values"]
    known = [
        (v, r, c)
        for line, r in zip(values, rows, strict=True)
        for v, c in zip(line, columns, strict=True)
        if v is not None
    ]
    low, high = min(known), max(known)
    label = (
        f"Heatmap: {part['unit']} of {len(rows)} by {len(columns)} ({part['row']} by {part['column']}); "
        f"highest {number(high[0])} at {high[1]}, {high[2]}; lowest {number(low[0])} at {low[1]}, {low[2]}."
    )
    unit = f"({part['unit']})" if part["unit"] else ""
    limits = part.get("limits", [low[0], high[0]])

    def paint(figure: Figure) -> None:
        ax = figure.add_subplot()
        heatmap(ax, values, rows, columns, number, (limits[0], limits[1]))
        ax.set_xlabel(part["column"])
        ax.set_ylabel(part["row"])

    return Chart(
        part["title"],
        " ".join(filter(None, [part["caption"], "The brighter, the higher", unit])) + ".",
        svg.draw(name, paint, min(_height(rows, columns) + 0.25, 14.0), label),
        {
            "title": f"{part['title']}: {part['unit']}",
            "columns": [f"{part['row']} \N{MULTIPLICATION SIGN} {part['column']}", *columns],
            "rows": [[r, *map(plain, line)] for r, line in zip(rows, values, strict=True)],
        },
    )


def heatmap(
    ax: Axes,
    values: Sequence[Sequence[Number]],
    rows: Sequence[str],
    columns: Sequence[str],
    write: Callable[[Number], str],
    limits: tuple[float, float],
    *,
    log: bool = False,
) -> None:
    """Coloured cells with their numbers; the text is dark or light by the cell's own brightness, so that it
    reads in both themes. ``log`` is for losses, which span decades.
    """
    import matplotlib
    from matplotlib.colors import LogNorm, Normalize

    table = np.array([[np.nan if v is None else v for v in row] for row in values], dtype=float)
    low, high = limits
    if log:
        low = max(low, 1e-3)
        norm: Normalize = LogNorm(low, max(high, low * 1.001))
    else:
        norm = Normalize(low, high if high > low else low + 1e-9)
    scale = matplotlib.colormaps["viridis_r" if log else "viridis"]
    mesh = ax.pcolormesh(
        np.ma.masked_invalid(table), cmap=scale, norm=norm, edgecolors=svg.LINES, linewidth=0.6
    )
    if len(columns) <= MOST_COLUMNS:
        for i, j in np.ndindex(table.shape):
            value = None if np.isnan(table[i, j]) else float(table[i, j])
            ink = svg.INK if value is None else _readable(scale(norm(value)))
            size = 10 if len(columns) <= 6 else 8
            ax.text(j + 0.5, i + 0.5, write(value), ha="center", va="center", color=ink, fontsize=size)
    else:
        ax.figure.colorbar(mesh, ax=ax, shrink=0.8, pad=0.02)
    ax.set_xticks(np.arange(len(columns)) + 0.5, labels=[short(c) for c in columns])
    ax.set_yticks(np.arange(len(rows)) + 0.5, labels=[short(r) for r in rows])
    if _slanted(columns):
        ax.tick_params(axis="x", labelrotation=40)
        for text in ax.get_xticklabels():
            text.set_horizontalalignment("right")
            text.set_rotation_mode("anchor")
    ax.invert_yaxis()
    ax.grid(False)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _slanted(columns: Sequence[str]) -> bool:
    """Whether column names need to be slanted: "magnitude" just fits a fifth of the width."""
    return max(map(len, columns), default=0) * len(columns) > 45


def _height(rows: Sequence[str], columns: Sequence[str]) -> float:
    """Inches that a heatmap needs, with room for slanted names."""
    names = 0.055 * max(len(short(c)) for c in columns) if _slanted(columns) else 0.0
    cell = 0.26 if len(columns) > MOST_COLUMNS else 0.42 if len(rows) <= MOST_ROWS else 0.3
    return 0.7 + cell * len(rows) + names


def _readable(rgba: tuple[float, float, float, float]) -> str:
    """Black or white, whichever stands out more (WCAG relative luminance)."""
    r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in rgba[:3])
    return "#000000" if 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 else "#ffffff"


def distances(part: Distances) -> Chart:
    """NNSTD between all pairs of networks."""
    names, nnstd, expected = part["names"], part["nnstd"], part.get("expected")
    off = [v for i, row in enumerate(nnstd) for j, v in enumerate(row) if i != j and v is not None]
    mean = f", {number(float(np.mean(off)))} on average between two different ones" if off else ""
    label = f"Heatmap: NNSTD between {len(names)} networks{mean}."

    def paint(figure: Figure) -> None:
        heatmap(figure.add_subplot(), nnstd, names, names, _distance, (0.0, 1.0))

    chance = f" Independent random topologies would have {number(expected)}." if expected is not None else ""
    return Chart(
        "Distance between the topologies",
        f"NNSTD: 0 is the same topology, 1 shares no connection.{chance}",
        svg.draw("distances", paint, _height(names, names), label),
        {
            "title": "NNSTD",
            "columns": ["Network", *names],
            "rows": [[n, *(_distance(v) for v in row)] for n, row in zip(names, nnstd, strict=True)],
        },
    )


def _distance(value: Number) -> str:
    return NOTHING if value is None else f"{value:.3f}"
