"""Parallel coordinates: a line across all settings, coloured by what they reached."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.report import svg
from regraft.report.chart import Chart, Key, number, plain, short
from regraft.report.figures import Axis, Parallel, Strand

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_DRAWN = 600
"""Lines that are drawn; of more, that many, evenly apart by their figure from the lowest to the highest."""

FAN = 0.62
"""Share of a place over which its lines are spread, lowest figure below."""

WIDTHS = (0.5, 0.6, 0.8, 1.0, 1.3)
"""Of the lines from the lowest to the highest fifth: they differ not by colour alone."""

MANY = 40
"""More lines of a fifth than this are drawn thinner."""

PARTS = 3
"""Rows in the table for an axis of numbers."""


def parallel(part: Parallel, name: str) -> Chart:
    """One line for each strand, in five colours from the lowest fifth of the figures to the highest.

    At each place of an axis the lines are spread by their figure: the colours there show what the place is
    good for.
    """
    strands = sorted(part["strands"], key=lambda s: s["figure"])
    drawn = _some(strands)
    figure_axis: Axis = {"name": part["figure"], "places": None}
    axes = [*part["axes"], figure_axis]
    figures = np.array([s["figure"] for s in drawn])
    heights = np.stack([_heights(a, [_values(s)[i] for s in drawn]) for i, a in enumerate(axes)])
    edges = [float(v) for v in np.quantile(figures, np.linspace(0, 1, len(svg.SCALE) + 1))]
    fifths = np.minimum(np.searchsorted(edges[1:-1], figures, side="right"), len(svg.SCALE) - 1)
    rows = _table(part, strands)
    best = max(rows, key=lambda r: float(r[3]), default=None)
    said = f" The highest mean, {best[6]}, is at {best[0]} {best[1]}." if best else ""
    label = (
        f"Parallel coordinates: {part['figure']} of {len(strands)} lines over "
        f"{', '.join(a['name'] for a in part['axes'])}, from {number(edges[0])} to {number(edges[-1])}.{said}"
    )

    def paint(figure: Figure) -> None:
        ax = figure.add_subplot()
        for k in range(len(svg.SCALE)):
            _paint_lines(ax, heights[:, fifths == k], k)
        for i, axis in enumerate(axes):
            _paint_axis(ax, i, axis, [_values(s)[i] for s in drawn], max(58 // len(axes), 5))
        _frame(ax, axes)

    few = f" {len(drawn)} of {len(strands):,} lines are drawn." if len(drawn) < len(strands) else ""
    places = max([len(a["places"] or ()) for a in part["axes"]], default=0)
    return Chart(
        part["title"],
        f"{part['caption']}{few}",
        svg.draw(name, paint, max(3.4, min(0.9 + 0.34 * places, 9.0)), label),
        {
            "title": f"{part['title']}: {part['figure']} at each place",
            "columns": ["Axis", "Place", "Lines", "Mean", "Lowest", "Highest"],
            "rows": [[r[0], r[1], r[2], *r[6:]] for r in rows],
        },
        _keys(edges, fifths),
    )


def _values(strand: Strand) -> list[str | float]:
    return [*strand["values"], strand["figure"]]


def _some(strands: Sequence[Strand]) -> list[Strand]:
    if len(strands) <= MOST_DRAWN:
        return list(strands)
    at = np.linspace(0, len(strands) - 1, MOST_DRAWN).round().astype(int)
    return [strands[i] for i in at]


def _heights(axis: Axis, values: Sequence[Any]) -> Any:
    """Where each line crosses an axis, from 0 to 1; the lines come sorted by their figure."""
    if axis["places"] is None:
        numbers = np.array(values, dtype=float)
        low, high = numbers.min(), numbers.max()
        return (numbers - low) / (high - low) if high > low else np.full(len(numbers), 0.5)
    at = np.array([axis["places"].index(v) for v in values])
    count = len(axis["places"])
    found = np.empty(len(values))
    for place in range(count):
        mine = np.flatnonzero(at == place)
        fan = (np.arange(len(mine)) + 0.5) / max(len(mine), 1) - 0.5
        # the first place is at the top, as names are read
        found[mine] = (count - 1 - place + 0.5 + FAN * fan) / count
    return found


def _paint_lines(ax: Axes, heights: Any, k: int) -> None:
    """All lines of one fifth as one path: a page of hundreds of lines stays small."""
    count, lines = heights.shape
    if not lines:
        return
    x = np.concatenate([np.arange(count), [np.nan]])
    y = np.concatenate([heights, np.full((1, lines), np.nan)])
    wide = WIDTHS[k] * (0.6 if lines > MANY else 1.5)
    look: dict[str, Any] = {"color": svg.SCALE[k], "linewidth": wide, "alpha": 0.55 if lines > MANY else 0.9}
    ax.plot(np.tile(x, lines), y.T.ravel(), zorder=2 + 0.1 * k, **look)


def _paint_axis(ax: Axes, i: int, axis: Axis, values: Sequence[Any], room: int) -> None:
    """The axis with the names of its places, or with its lowest and highest number; ``room`` in letters."""
    ax.plot([i, i], [0, 1], color=svg.MUTED, linewidth=1.0, zorder=3)
    if axis["places"] is None:
        numbers = [float(v) for v in values]
        marks = [(0.0, f"{min(numbers):.3g}"), (1.0, f"{max(numbers):.3g}")]
        if marks[0][1] == marks[1][1]:
            marks = [(0.5, marks[0][1])]
    else:
        count = len(axis["places"])
        marks = [((count - 1 - k + 0.5) / count, short(p, room)) for k, p in enumerate(axis["places"])]
    for at, text in marks:
        ax.text(
            i, at, text, ha="center", va="center", fontsize=9, zorder=4,
            bbox={"facecolor": svg.CARD, "edgecolor": "none", "alpha": 0.85, "pad": 1.2},
        )  # fmt: skip


def _frame(ax: Axes, axes: Sequence[Axis]) -> None:
    room = max(52 // len(axes), 5)
    names = [textwrap.wrap(a["name"], room, break_long_words=False) for a in axes]
    if any(len(line) > room for lines in names for line in lines):
        # every second name stands lower, which gives each twice the room
        names = [textwrap.wrap(short(a["name"], 4 * room), 2 * room) for a in axes]
        above = max(map(len, names[::2]))
        names = [[""] * (above if i % 2 else 0) + lines for i, lines in enumerate(names)]
    ax.set_xlim(-0.35, len(axes) - 0.65)
    ax.set_ylim(-0.05, 1.05)
    ax.set_xticks(range(len(axes)), labels=["\n".join(lines) for lines in names])
    ax.set_yticks([])
    ax.tick_params(axis="x", length=0, pad=6)
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _keys(edges: Sequence[float], fifths: Any) -> list[Key]:
    """From high to low, as the figure's own axis stands; fifths without a line are left out."""
    return [
        Key(
            f"{number(edges[k])} to {number(edges[k + 1])}", 0, variable=f"--scale-{k + 1}",
            width=1.5 + 2 * WIDTHS[k],
        )
        for k in reversed(range(len(svg.SCALE)))
        if (fifths == k).any()
    ]  # fmt: skip


def _table(part: Parallel, strands: Sequence[Strand]) -> list[list[Any]]:
    """For each place: axis, place, lines, then mean, lowest and highest as numbers and as text."""
    rows: list[list[Any]] = []
    for i, axis in enumerate(part["axes"]):
        at = [(s["values"][i], s["figure"]) for s in strands]
        for place, figures in _places(axis, at):
            found = [float(np.mean(figures)), min(figures), max(figures)]
            rows.append([axis["name"], place, len(figures), *found, *map(plain, found)])
    return rows


def _places(axis: Axis, at: Sequence[tuple[Any, float]]) -> list[tuple[str, list[float]]]:
    if axis["places"] is not None:
        named = [(p, [f for v, f in at if v == p]) for p in axis["places"]]
        return [(p, figures) for p, figures in named if figures]
    values = sorted({float(v) for v, _ in at})
    if len(values) <= 2 * PARTS:
        return [(number(v), [f for w, f in at if w == v]) for v in values]
    found = []
    for part in np.array_split(np.array(values), PARTS):
        low, high = float(part[0]), float(part[-1])
        found.append((f"{number(low)} to {number(high)}", [f for v, f in at if low <= v <= high]))
    return found
