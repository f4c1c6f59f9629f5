"""Draw the README's picture from a real run of the demonstration.

    python docs/make_images.py

Trains the four networks of ``regraft demo`` (half a minute), merges them, and writes merge-light.svg and
merge-dark.svg to docs/images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from regraft import data
from regraft.files import atomic_write
from regraft.studies import demo
from regraft.studies.networks import train_network
from regraft.topology import Topology

FOLDER = Path(__file__).parent / "images"
SEEDS = (0, 1, 2, 3)
UNITS = 64  # hidden units shown of 256
SIDE, GAP = 1.75, 0.4  # inches: a parent's matrix, and the space between two
WIDTH, HEIGHT = 9.4, 2 * SIDE + GAP + 1.0
THEMES = {
    "light": {
        "ink": "#1b2026", "muted": "#59636e", "paper": "#f6f7f8",
        "parents": ("#1f63c4", "#bd4f00", "#1a7a48", "#7a3cb8"),
    },
    "dark": {
        "ink": "#e8ebee", "muted": "#a3adb8", "paper": "#191d23",
        "parents": ("#74b1ff", "#ffa05a", "#62d699", "#c8a2ff"),
    },
}  # fmt: skip


def run() -> demo.Demo:
    """The demonstration, as the command runs it."""
    digits = data.load("digits")
    networks = [train_network(demo.RECIPE, digits, seed) for seed in SEEDS]
    return demo.merge_networks(demo.RECIPE, digits, networks)


def first_layer(topology: Topology) -> np.ndarray:
    """Which of the first UNITS units is connected to which input: bool [UNITS, inputs]."""
    connections = next(iter(topology.values()))
    there = np.zeros(connections.shape, dtype=bool)
    there.flat[connections.index.numpy()] = True
    return there[:UNITS]


def draw(made: demo.Demo, theme: dict[str, Any]) -> Figure:
    """Four parents at the left, the merged network at the right; all lengths in inches."""
    parents = [first_layer(n.topology) for n in made.networks]
    merged = first_layer(Topology.of(made.merged_model()))
    figure = Figure(figsize=(WIDTH, HEIGHT))
    FigureCanvasSVG(figure)
    for i, (network, there) in enumerate(zip(made.networks, parents, strict=True)):
        left, bottom = 0.1 + (SIDE + 0.25) * (i % 2), 0.65 + (SIDE + GAP) * (1 - i // 2)
        ax = figure.add_axes((left / WIDTH, bottom / HEIGHT, SIDE / WIDTH, SIDE / HEIGHT))
        colours = np.where(there[..., None], to_rgb(theme["parents"][i]), to_rgb(theme["paper"]))
        show(ax, colours, f"{network.name}: {100 * network.accuracy:.1f} %", theme)
    side = 2 * SIDE + GAP
    ax = figure.add_axes(((WIDTH - side - 0.1) / WIDTH, 0.65 / HEIGHT, side / WIDTH, side / HEIGHT))
    title = f"merged, no further training: {100 * made.best.accuracy:.1f} %"
    show(ax, origins(merged, parents, theme), title, theme)
    words(figure, theme)
    return figure


def origins(merged: np.ndarray, parents: list[np.ndarray], theme: dict[str, Any]) -> np.ndarray:
    """Colours [UNITS, inputs, 3]: the parent that a kept connection came from, ink where several had it."""
    colours = np.empty((*merged.shape, 3))
    colours[:] = to_rgb(theme["paper"])
    several = np.sum(parents, axis=0) > 1
    for there, colour in zip(parents, theme["parents"], strict=True):
        colours[merged & there] = to_rgb(colour)
    colours[merged & several] = to_rgb(theme["ink"])
    return colours


def show(ax: Any, colours: np.ndarray, title: str, theme: dict[str, Any]) -> None:
    """One matrix, a pixel for each possible connection."""
    ax.imshow(colours, interpolation="none")
    ax.set_title(title, color=theme["ink"], fontsize=12, pad=5)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set(color=theme["muted"], linewidth=0.6)


def words(figure: Figure, theme: dict[str, Any]) -> None:
    """What happens between the two sides, and what the picture shows."""
    middle, y = (2 * SIDE + 0.35 + WIDTH - 2 * SIDE - GAP - 0.1) / 2 / WIDTH, (0.65 + SIDE + GAP / 2) / HEIGHT
    half = 0.5 / WIDTH
    figure.add_artist(
        FancyArrowPatch(
            (middle - half, y),
            (middle + half, y),
            transform=figure.transFigure,
            arrowstyle="-|>",
            mutation_scale=22,
            color=theme["ink"],
            linewidth=1.8,
        )
    )
    figure.text(middle, y + 0.04, "merge", fontsize=13, color=theme["ink"], ha="center")
    note = "same number of\nconnections"
    figure.text(middle, y - 0.04, note, fontsize=9.5, color=theme["ink"], ha="center", va="top")
    several = "black" if theme is THEMES["light"] else "white"
    caption = (
        f"Each mark is a connection of the first layer: 64 pixels across, {UNITS} of 256 units down. In the "
        "merged\nnetwork it has the colour of the one it came from, "
        f"or is {several} where several had it. Percent: test accuracy."
    )
    figure.text(
        0.1 / WIDTH, 0.48 / HEIGHT, caption, fontsize=9.5, color=theme["muted"], va="top", linespacing=1.4
    )


def main() -> None:
    """Run, draw, write."""
    made = run()
    FOLDER.mkdir(exist_ok=True)
    for name, theme in THEMES.items():
        with matplotlib.rc_context(
            {"svg.fonttype": "path", "svg.hashsalt": name, "font.family": "DejaVu Sans"}
        ):
            figure = draw(made, theme)
            with atomic_write(FOLDER / f"merge-{name}.svg") as file:
                figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    print(demo.summary(made))


if __name__ == "__main__":
    main()
