"""From a matplotlib figure to an inline SVG whose colours follow the page.

Figures are drawn with placeholder colours; in the SVG each becomes a CSS variable, so that one drawing serves
light and dark. Text stays text, in the page's own font. Nothing that changes from run to run (dates, random
ids) stays in.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from regraft.errors import MissingDependency

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010101"
MUTED = "#010102"
LINES = "#010103"
CARD = "#010104"
SERIES = tuple(f"#0102{i:02x}" for i in range(1, 9))
SCALE = tuple(f"#0103{i:02x}" for i in range(1, 6))
"""From low to high: lines that read on both a light and a dark page, for which a colour map has no ends."""

VARIABLES = (
    {INK: "--ink", MUTED: "--muted", LINES: "--lines", CARD: "--card"}
    | {colour: f"--series-{i}" for i, colour in enumerate(SERIES, start=1)}
    | {colour: f"--scale-{i}" for i, colour in enumerate(SCALE, start=1)}
)

TILES = (
    "", "M0 6L6 0M-1 1L1 -1M5 7L7 5", "M1.5 3h1.6", "M0 1.5h6M0 4.5h6", "M0 0L6 6M0 6L6 0",
    "M0 0L6 6M-1 5L1 7M5 -1L7 1", "M1.5 0v6M4.5 0v6", "M1.5 3a1.5 1.5 0 1 0 3 0a1.5 1.5 0 1 0-3 0",
)  # fmt: skip
"""Patterns on bars, in the order of the series, so that bars differ not by colour alone: SVG paths that
repeat every 6 units. Matplotlib's own would make a page of a hundred bars a megabyte longer."""

WIDTH = 4.6
"""Inches at 72 points: a chart is about as wide as a phone, so that its text needs no shrinking there."""

FONT = "DejaVu Sans"  # comes with matplotlib: the layout does not depend on the machine's fonts

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.image_inline": True,
    "text.parse_math": False,  # names may hold dollar signs
    "font.family": FONT,
    "font.size": 10.5,
    "axes.titlesize": 10.5,
    "axes.labelsize": 10.5,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": LINES,
    "grid.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "figure.dpi": 72,
    "hatch.linewidth": 0.9,
}


@contextmanager
def style(name: str) -> Iterator[None]:
    """Matplotlib's defaults plus ours, whatever the user's own settings, for the drawing called ``name``."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingDependency("matplotlib", "report", "a report with charts") from error
    with matplotlib.rc_context(), warnings.catch_warnings():
        # the page's font draws the text, not the one that measures it
        warnings.filterwarnings("ignore", message=r".*Glyph .* missing from font", category=UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(cast(Any, {**STYLE, "svg.hashsalt": name}))
        yield


def draw(name: str, paint: Callable[[Figure], None], height: float, label: str) -> str:
    """The inline SVG of what ``paint`` draws on an empty figure of ``height`` inches.

    Args:
        name: unique within the page; it prefixes all ids.
        label: what the chart shows, for those who do not see it.
    """
    with style(name):
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return inline(out.getvalue(), name, label)


def inline(svg: str, name: str, label: str) -> str:
    """``svg`` as it stands in the page: themed, without prologue, ids prefixed, labelled."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<pattern .*?</pattern>", _tile, svg, flags=re.DOTALL)
    svg = re.sub(r"<[^>]+>", lambda tag: _theme(tag[0], name), svg)
    box = re.search(r'viewBox="[^"]+"', svg)
    assert box is not None
    head = f'<svg class="chart" role="img" aria-label="{_attribute(label)}" {box[0]}>'
    return head + svg[svg.index(">") + 1 :].strip()


def _tile(found: re.Match[str]) -> str:
    """Our pattern of the series whose colour a pattern of matplotlib has."""
    name, colour = re.search(r'id="[^"]+"', found[0]), re.search("|".join(SERIES), found[0])
    assert name is not None
    assert colour is not None
    path = TILES[SERIES.index(colour[0]) % len(TILES)]
    return (
        f'<pattern {name[0]} patternUnits="userSpaceOnUse" width="6" height="6">'
        f'<rect width="6" height="6" style="fill: {colour[0]}"/>'
        f'<path d="{path}" style="fill: none; stroke: {CARD}; stroke-width: 0.9"/></pattern>'
    )


def _theme(tag: str, name: str) -> str:
    """One tag with the page's colours, font and ids; the text between tags is never touched."""
    for colour, variable in VARIABLES.items():
        tag = tag.replace(colour, f"var({variable})")
    tag = tag.replace(f"'{FONT}'", "var(--font)")
    tag = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', tag)
    tag = re.sub(r'\bhref="#([^"]+)"', rf'href="#{name}-\1"', tag)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", tag)


def _attribute(text: str) -> str:
    for plain, escaped in (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(plain, escaped)
    return text
