"""Axes and levels that several kinds of chart share."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from regraft.report import svg
from regraft.report.chart import Key, dash_style, number
from regraft.report.figures import Level

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVEL_DASHES = ("6 3", "2 2", "9 2 2 2", "1 3", "12 4")


def linear_axis(axis: Any, *, whole: bool = False) -> None:
    """Ticks far enough apart for a chart as wide as a phone; ``whole``: at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=6, integer=whole))


def log_axis(axis: Any) -> None:
    """A logarithmic axis whose ticks are plain numbers: 0.1, 1, 10.

    Fewer than three decades have ticks at 1, 2 and 5 times powers of ten.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes = axis.axes
    (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
    low, high = axis.get_view_interval()
    decades = math.log10(high / low) if 0 < low < high else 1.0
    subs = [1.0, 2.0, 5.0] if decades < 3 else [1.0]
    if decades < 0.7:
        subs = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0]
    axis.set_major_locator(LogLocator(base=10, subs=subs, numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    axis.set_minor_formatter(NullFormatter())


def _tick(value: float) -> str:
    """
    >>> _tick(0.1), _tick(1e6), _tick(1e-5)
    ('0.1', '1e6', '1e-5')
    """
    return re.sub(r"e\+?(-?)0*", r"e\1", f"{value:g}")


def paint_levels(ax: Axes, levels: Sequence[Level], *, upright: bool = False) -> None:
    """Lines across the whole chart: horizontal ones, or ``upright`` ones where values run sideways."""
    for i, level in enumerate(levels):
        draw = ax.axvline if upright else ax.axhline
        draw(
            level["value"], color=svg.MUTED, linestyle=dash_style(_dashes(i)), linewidth=1.3, zorder=1.5
        )  # fmt: skip


def level_keys(levels: Sequence[Level]) -> list[Key]:
    """The legend's entries of these levels, with their values."""
    return [Key(f"{v['name']}: {number(v['value'])}", 0, _dashes(i)) for i, v in enumerate(levels)]


def _dashes(i: int) -> str:
    return LEVEL_DASHES[i % len(LEVEL_DASHES)]
