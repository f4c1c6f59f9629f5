"""What the pictures share: two palettes, a canvas measured in inches, and files for light and dark pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.text import Text

from regraft.files import atomic_write

FOLDER = Path(__file__).parent.parent / "images"
Theme = Mapping[str, Any]
THEMES: dict[str, Theme] = {
    "light": {
        "name": "light", "ink": "#1b2026", "muted": "#59636e", "grid": "#d5dae0", "paper": "#eef0f2",
        "lines": ("#1f63c4", "#bd4f00", "#1a7a48", "#7a3cb8"),
    },
    "dark": {
        "name": "dark", "ink": "#e8ebee", "muted": "#a3adb8", "grid": "#3a424c", "paper": "#20262d",
        "lines": ("#74b1ff", "#ffa05a", "#62d699", "#c8a2ff"),
    },
}  # fmt: skip
WIDTH = 5.0  # inches; a phone shows 5 inches in 350 pixels
SMALLEST = 9.0  # points: 8.75 pixels on a phone


class Canvas:
    """A figure of 5 inches, and axes over all of it whose unit is an inch; the origin is below left."""

    def __init__(self, height: float, theme: Theme) -> None:
        self.theme, self.height = theme, height
        self.figure = Figure(figsize=(WIDTH, height))
        FigureCanvasSVG(self.figure)
        self.page = self.figure.add_axes((0, 0, 1, 1))
        self.page.set(xlim=(0, WIDTH), ylim=(0, height))
        self.page.axis("off")

    def text(self, x: float, y: float, words: str, size: float = 10, color: str = "ink", **more: Any) -> None:
        """Words whose lower left corner is (x, y), unless ``ha`` and ``va`` say otherwise."""
        self.page.text(x, y, words, fontsize=size, color=self.colour(color), **more)

    def colour(self, name: str | int) -> Any:
        """A colour of the theme by its name, a line's colour by its number, or any other as it is."""
        if isinstance(name, int):
            return self.theme["lines"][name]
        return self.theme.get(name, name)

    def box(self, x: float, y: float, width: float, height: float, color: Any, **more: Any) -> None:
        """A filled rectangle."""
        look = {"linewidth": 0, "facecolor": self.colour(color), **more}
        self.page.add_patch(Rectangle((x, y), width, height, **look))

    def arrow(
        self, start: tuple[float, float], end: tuple[float, float], color: Any = "ink", **more: Any
    ) -> None:
        """An arrow from a point to another."""
        look = {
            "arrowstyle": "-|>",
            "mutation_scale": 14,
            "linewidth": 1.4,
            "shrinkA": 0,
            "shrinkB": 0,
            **more,
        }
        self.page.add_patch(FancyArrowPatch(start, end, color=self.colour(color), **look))

    def axes(self, x: float, y: float, width: float, height: float) -> Any:
        """Axes of their own, in inches."""
        return self.figure.add_axes((x / WIDTH, y / self.height, width / WIDTH, height / self.height))

    def plot(
        self, place: tuple[float, float, float, float], title: str = "", x: str = "", y: str = ""
    ) -> Any:
        """Axes for lines and bars, quiet."""
        ax = self.axes(*place)
        ax.patch.set_visible(False)
        ax.set_title(title, color=self.theme["ink"], fontsize=10, loc="left")
        ax.set_xlabel(x, color=self.theme["muted"], fontsize=9.5)
        ax.set_ylabel(y, color=self.theme["muted"], fontsize=9.5)
        ax.tick_params(which="both", colors=self.theme["muted"], labelsize=9)
        ax.grid(True, color=self.theme["grid"], linewidth=0.6)
        ax.set_axisbelow(True)
        for side, spine in ax.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(self.theme["grid"])
        return ax

    def pixels(self, place: tuple[float, float, float, float], layers: list[tuple[np.ndarray, Any]]) -> Any:
        """A matrix with a pixel for each position: ``(where, colour)`` one over the other."""
        first = layers[0][0]
        colours = np.empty((*first.shape, 3))
        colours[:] = to_rgb(self.theme["paper"])
        for where, colour in layers:
            colours[where] = to_rgb(self.colour(colour))
        return self.image(place, colours)

    def image(self, place: tuple[float, float, float, float], pixels: np.ndarray, **more: Any) -> Any:
        """Any matrix of numbers or colours, framed."""
        ax = self.axes(*place)
        ax.imshow(pixels, interpolation="none", aspect="auto", **more)
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set(color=self.theme["muted"], linewidth=0.6)
        return ax

    def grid(
        self, x: float, y: float, cell: float, colours: Mapping[tuple[int, int], Any], shape: tuple[int, int]
    ) -> None:
        """Cells [rows, columns], lower left corner at (x, y), row 0 on top; those not named are empty."""
        rows, columns = shape
        for i in range(rows):
            for j in range(columns):
                place = (x + j * cell, y + (rows - 1 - i) * cell)
                edge = {"edgecolor": self.theme["grid"], "linewidth": 0.8}
                self.box(*place, cell, cell, colours.get((i, j), "paper"), **edge)


def save(name: str, draw: Callable[[Theme], Canvas], folder: Path = FOLDER) -> None:
    """``draw(theme)`` as NAME-light.svg and NAME-dark.svg; words too small for a phone are an error."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, theme in THEMES.items():
        fonts: Any = {"svg.fonttype": "path", "svg.hashsalt": name + kind, "font.family": "DejaVu Sans"}
        with matplotlib.rc_context(fonts):
            figure = draw(theme).figure
            small = [t for t in figure.findobj(Text) if t.get_text() and t.get_fontsize() < SMALLEST]
            if small:
                raise ValueError(f"{name}: {small[0].get_text()!r} has {small[0].get_fontsize()} points")
            with atomic_write(folder / f"{name}-{kind}.svg") as file:
                figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
