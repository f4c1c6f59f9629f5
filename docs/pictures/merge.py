"""Four networks of the demonstration and the one that they merge into: the README's picture."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pictures.canvas import Canvas, Theme
from regraft import Topology, data
from regraft.studies import demo
from regraft.studies.networks import train_network

SEEDS, UNITS = (0, 1, 2, 3), 64  # hidden units shown, of 256


class Made(NamedTuple):
    """First-layer topologies [UNITS, inputs] and test accuracies of the parents and of the merged one."""

    parents: list[np.ndarray]
    accuracies: list[float]
    merged: np.ndarray
    accuracy: float


def compute() -> Made:
    """The demonstration, as the command runs it."""
    digits = data.load("digits")
    networks = [train_network(demo.RECIPE, digits, seed) for seed in SEEDS]
    made = demo.merge_networks(demo.RECIPE, digits, networks)
    parents = [first_layer(n.topology) for n in made.networks]
    accuracies = [n.accuracy for n in made.networks]
    print(demo.summary(made))
    return Made(parents, accuracies, first_layer(Topology.of(made.merged_model())), made.best.accuracy)


def first_layer(topology: Topology) -> np.ndarray:
    """Which of the first UNITS units is connected to which input: bool [UNITS, inputs]."""
    connections = next(iter(topology.values()))
    there = np.zeros(connections.shape, dtype=bool)
    there.flat[connections.index.numpy()] = True
    return there[:UNITS]


def draw(made: Made, theme: Theme) -> Canvas:
    """Four parents at the left, the merged network at the right."""
    page = Canvas(3.2, theme)
    side, gap = 0.92, 0.3
    for i, (there, accuracy) in enumerate(zip(made.parents, made.accuracies, strict=True)):
        x, y = 0.1 + (side + 0.1) * (i % 2), 0.78 + (side + gap) * (1 - i // 2)
        page.pixels((x, y, side, side), [(there, i)])
        page.text(x, y + side + 0.06, f"{100 * accuracy:.1f} %", color=i)
    whole = 2 * side + gap
    y = 0.78 + whole / 2
    page.text(2.4, y + 0.13, "merge", ha="center", weight="bold")
    page.arrow((2.15, y), (2.65, y))
    origins = [(made.merged & there, i) for i, there in enumerate(made.parents)]
    several = np.sum(made.parents, axis=0) > 1
    page.pixels((2.76, 0.78, whole, whole), [*origins, (made.merged & several, "ink")])
    page.text(2.76, 0.78 + whole + 0.06, f"merged, untrained: {100 * made.accuracy:.1f} %", size=9.5)
    shade = "black" if theme["name"] == "light" else "white"
    caption = (
        "Marks: connections of the first layer. A merged one has its parent's\n"
        f"colour, or {shade} where several had it; there are as many as in a parent."
    )
    page.text(0.1, 0.6, caption, size=9, color="muted", va="top", linespacing=1.4)
    return page
