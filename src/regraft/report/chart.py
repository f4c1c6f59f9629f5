"""What every chart is made of: a drawing, its words, its data, and how numbers are written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from regraft.report import svg
from regraft.report.schema import Number, Table

DASHES = ("", "5 2", "1.5 1.5", "6 2 1.5 2")
NOTHING = "\N{EN DASH}"
"""How a number that does not exist is written."""

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"

SHAPES = {
    "o": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0",
    "s": "M-4-4h8v8h-8z",
    "^": "M0-4.5L4.5 4h-9z",
    "D": "M0-5L5 0L0 5L-5 0z",
    "v": "M0 4.5L4.5-4h-9z",
    "P": "M-1.7-5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
    "X": "M-5-2.6L-2.6-5L0-2.4L2.6-5L5-2.6L2.4 0L5 2.6L2.6 5L0 2.4L-2.6 5L-5 2.6L-2.4 0z",
    "d": "M0-5L3 0L0 5L-3 0z",
}
"""Matplotlib's markers, in the order of the series, as SVG paths for the legend."""

MARKERS = tuple(SHAPES)


@dataclass(frozen=True)
class Key:
    """One entry of a legend.

    Attributes:
        name: what it stands for.
        series: its colour, 1 to 8; 0 for muted ink.
        dashes: of a line.
        shape: ``"line"``, ``"bar"`` or one of SHAPES.
        marker: one of SHAPES on the line; empty for none.
        hatch: place in ``svg.TILES`` of the pattern on a bar.
        variable: CSS variable of the colour, instead of ``series``.
        width: of a line, in pixels.
    """

    name: str
    series: int
    dashes: str = ""
    shape: str = "line"
    marker: str = ""
    hatch: int = 0
    variable: str = ""
    width: float = 2.5

    @property
    def colour(self) -> str:
        """CSS."""
        if self.variable:
            return f"var({self.variable})"
        return f"var(--series-{self.series})" if self.series else "var(--muted)"


@dataclass(frozen=True)
class Chart:
    """A drawing with its title, caption, legend and data."""

    title: str
    caption: str
    svg: str
    data: Table
    legend: list[Key] = field(default_factory=list)


def dashes(i: int) -> str:
    """The dashes of series ``i`` (from 0): with the colours, 32 series differ.

    >>> dashes(0) == dashes(8)
    False
    """
    return DASHES[(i + i // len(svg.SERIES)) % len(DASHES)]


def dash_style(text: str) -> Any:
    """SVG's dashes as matplotlib's line style.

    >>> dash_style("5 2"), dash_style("")
    ((0, (5.0, 2.0)), '-')
    """
    return (0, tuple(float(x) for x in text.split())) if text else "-"


def colour(i: int) -> str:
    """The placeholder colour of series ``i`` (from 0), repeating after eight."""
    return svg.SERIES[i % len(svg.SERIES)]


def percent(value: Number, digits: int = 1) -> str:
    """A fraction as a number in percent, without the sign.

    >>> percent(0.9725), percent(1.0)
    ('97.2', '100.0')
    """
    return NOTHING if value is None else f"{100 * value:.{digits}f}"


def number(value: Number) -> str:
    """Three significant digits, without exponent where it can be read.

    >>> number(0.12345), number(12.0), number(4321.0), number(1e-9)
    ('0.123', '12.0', '4321', '1.0e-09')
    """
    if value is None:
        return NOTHING
    if value == 0 or 1e-3 <= abs(value) < 1000:
        return f"{value:#.3g}".rstrip(".")
    return f"{value:.0f}" if 1000 <= abs(value) < 1e5 else f"{value:.1e}"


def plain(value: Number, spread: Number = None) -> str:
    """Four significant digits, with the spread where there is one, for the figures as a table.

    >>> plain(97.256), plain(97.256, 0.4211)
    ('97.26', '97.26 ± 0.42')
    """
    if value is None:
        return NOTHING
    text = f"{value:,.0f}" if abs(value) >= 10000 and value == round(value) else f"{value:.4g}"
    return text if spread is None else f"{text} \N{PLUS-MINUS SIGN} {spread:.2g}"


def short(name: str, limit: int = 20) -> str:
    """``name`` with at most ``limit`` characters, for the inside of a drawing; the table has it whole.

    >>> short("a-very-long-name-of-a-network.safetensors") == "a-very-long-name-of" + ELLIPSIS
    True
    """
    return name if len(name) <= limit else name[: limit - 1] + ELLIPSIS
