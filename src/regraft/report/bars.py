"""Bars and boxes; both lie on their side, so that their names can be read on a phone."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.report import svg
from regraft.report.axes import level_keys, linear_axis, log_axis, paint_levels
from regraft.report.chart import NOTHING, Chart, Key, colour, number, percent, plain, short
from regraft.report.figures import Bars, BarSet, Boxes
from regraft.report.schema import Densities

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TALLEST = 14.0
"""Inches of the longest chart."""

NAME, WRAPPED = 24, 20
"""Letters of a line of a name; more names than these have one line each."""

TWO_LINES = 0.42
"""Inches that a name of two lines needs."""

LEAST_ROOM = 0.13
"""Inches that a bar needs for its number."""


def bars(part: Bars, name: str) -> Chart:
    """Grouped bars with errors, on a linear or logarithmic axis; sets differ by colour and pattern."""
    groups, sets = part["groups"], part["sets"]
    said = "; ".join(
        f"{one['name']} " + ", ".join(f"{g} {number(v)}" for g, v in zip(groups, one["values"], strict=True))
        for one in sets
    )
    label = f"Bar chart: {part['y']} of {len(groups)} groups. {_cut(said)}."
    rows: list[list[Any]] = []
    for i, group in enumerate(groups):
        spreads = [one.get("spread", [None] * len(groups))[i] for one in sets]
        values = [one["values"][i] for one in sets]
        rows.append([group, *(plain(v, s) for v, s in zip(values, spreads, strict=True))])
    return Chart(
        part["title"],
        part["caption"],
        _draw(name, label, groups, sets, part["y"], log=bool(part.get("log_y"))),
        {"title": f"{part['title']}: {part['y']}", "columns": ["", *(s["name"] for s in sets)], "rows": rows},
        _keys([one["name"] for one in sets]) if len(sets) > 1 or sets[0]["name"] else [],
    )


def densities(part: Densities, name: str = "densities") -> Chart:
    """Density of each layer as bars, one for each network."""
    layers, networks = part["layers"], part["networks"]
    label = f"Bar chart: density in percent of {len(layers)} layers of {len(networks)} networks."
    sets: list[BarSet] = [{"name": n["name"], "values": [100 * d for d in n["densities"]]} for n in networks]
    rows = [[layer, *(percent(n["densities"][i], 2) for n in networks)] for i, layer in enumerate(layers)]
    return Chart(
        "Layer densities",
        "Share of the possible connections of each layer that exist.",
        _draw(name, label, layers, sets, "Density (%): connections that exist of all possible"),
        {"title": "Density (%)", "columns": ["Layer", *(n["name"] for n in networks)], "rows": rows},
        _keys([n["name"] for n in networks]),
    )


def boxes(part: Boxes, name: str) -> Chart:
    """Box plots: the middle half, the median, the mean, and whiskers from the lowest to the highest."""
    found, levels = part["boxes"], part.get("levels", [])
    said = "; ".join(
        f"{b['name']} median {number(b['median'])}, from {number(b['low'])} to {number(b['high'])}"
        for b in found
    )
    label = f"Box plots: {part['y']} of {len(found)} groups. {_cut(said)}."

    def paint(figure: Figure) -> None:
        ax = figure.add_subplot()
        ink = svg.INK
        for i, one in enumerate(found):
            ax.hlines(i, one["low"], one["high"], color=ink, linewidth=1.0, zorder=2)
            for end in (one["low"], one["high"]):
                ax.vlines(end, i - 0.14, i + 0.14, color=ink, linewidth=1.0, zorder=2)
            wide = one["q3"] - one["q1"]
            ax.barh(i, wide, left=one["q1"], height=0.56, color=svg.SERIES[0], alpha=0.35, zorder=2.1)
            ax.vlines(one["median"], i - 0.28, i + 0.28, color=ink, linewidth=2.0, zorder=2.2)
            mark: dict[str, Any] = {"marker": "D", "markersize": 4.5, "markeredgewidth": 0, "zorder": 3}
            ax.plot([one["mean"]], [i], color=svg.SERIES[1], **mark)
        paint_levels(ax, levels, upright=True)
        _names(ax, [b["name"] for b in found])
        ax.set_xlabel(part["y"])
        linear_axis(ax.xaxis)

    room = TWO_LINES if any("\n" in n for n in _wrapped([b["name"] for b in found])) else 0.32
    rows = [
        [b["name"], b["n"], *(plain(b[k]) for k in ("low", "q1", "median", "q3", "high", "mean"))]
        for b in found
    ]
    columns = ["", "Values", "Lowest", "First quartile", "Median", "Third quartile", "Highest", "Mean"]
    return Chart(
        part["title"],
        part["caption"],
        svg.draw(name, paint, min(0.8 + room * len(found), TALLEST), label),
        {"title": f"{part['title']}: {part['y']}", "columns": columns, "rows": rows},
        [
            Key("middle half", 1, shape="bar"), Key("median", 0, shape="tick"), Key("mean", 2, shape="D"),
            Key("lowest to highest", 0), *level_keys(levels),
        ],
    )  # fmt: skip


def _draw(
    name: str, label: str, groups: Sequence[str], sets: Sequence[BarSet], axis: str, *, log: bool = False
) -> str:
    count = max(len(groups) * len(sets), 1)
    room = 0.2 * len(sets) + 0.1
    if any("\n" in name for name in _wrapped(groups)):
        room = max(room, TWO_LINES)
    height = min(0.9 + room * len(groups), TALLEST)
    written = number if (height - 0.9) / count >= LEAST_ROOM else None

    def paint(figure: Figure) -> None:
        ax = figure.add_subplot()
        if log:
            known = [v for s in sets for v in s["values"] if v is not None]
            ax.set_xlim(min(known) / 2, max(known) * 2)
            log_axis(ax.xaxis)
        step = 0.8 / max(len(sets), 1)
        for i, one in enumerate(sets):
            at = np.arange(len(groups)) - 0.4 + step * (i + 0.5)
            _paint_set(ax, i, at, step, one, written)
        _names(ax, groups)
        ax.margins(x=0.14)
        ax.set_xlabel(axis)
        if log:
            known = [v + (s or 0) for one in sets for v, s in _pairs(one) if v is not None]
            left = ax.get_xlim()[0]
            ax.set_xlim(left, max(known) * (max(known) / left) ** 0.17)
            log_axis(ax.xaxis)
        else:
            linear_axis(ax.xaxis)

    return svg.draw(name, paint, height, label)


def _paint_set(
    ax: Axes, i: int, at: Any, step: float, one: BarSet, write: Callable[[float | None], str] | None
) -> None:
    """The bars of one set, with their errors and numbers."""
    known = [0.0 if v is None else v for v in one["values"]]
    look: dict[str, Any] = {
        "color": colour(i),
        "edgecolor": svg.CARD,
        "hatch": "/" if i % len(svg.TILES) else "",
    }
    ax.barh(at, known, height=step * 0.86, linewidth=0, **look)
    for y, (value, spread) in zip(at, _pairs(one), strict=True):
        if value is not None and spread:
            ax.errorbar(value, y, xerr=spread, color=svg.INK, linewidth=1.1, capsize=2.5, capthick=1.1)
        if write is not None:
            end = 0.0 if value is None else value + (spread or 0) * (1 if value >= 0 else -1)
            left = value is not None and value < 0
            text = NOTHING if value is None else write(value)
            ax.annotate(
                text, (end, y), (-3 if left else 3, 0), textcoords="offset points", va="center",
                ha="right" if left else "left", fontsize=9,
            )  # fmt: skip


def _pairs(one: BarSet) -> list[tuple[float | None, float | None]]:
    return list(zip(one["values"], one.get("spread", [None] * len(one["values"])), strict=True))


def _wrapped(names: Sequence[str]) -> list[str]:
    """Long names in two lines where there are few, cut where that is not enough."""
    most = 2 if len(names) <= WRAPPED else 1
    found = []
    for name in names:
        lines = textwrap.wrap(name, NAME)
        fits = len(lines) <= most and all(len(line) <= NAME for line in lines)
        found.append("\n".join(lines) if fits else short(name, NAME))
    return found


def _names(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), labels=_wrapped(names))
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)


def _keys(names: Sequence[str]) -> list[Key]:
    return [Key(n, i % 8 + 1, shape="bar", hatch=i % len(svg.TILES)) for i, n in enumerate(names)]


def _cut(text: str, limit: int = 600) -> str:
    """A label that can be listened to; the table has the rest."""
    return text if len(text) <= limit else text[:limit].rsplit(";", 1)[0] + "; and more"
