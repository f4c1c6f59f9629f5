"""Draw what alignment does to two dense networks of the digits: docs/images/align-light.svg and -dark.svg.

    python benchmarks/alignment_picture.py

Trains two 64-256-256-10 networks (half a minute), aligns them by their weights, and draws the correlation of
the answers of the first 48 first-layer units of each, before and after, and the test accuracy on the straight
line between the two.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from _common import save_pictures, style
from regraft import data, graph, measure
from regraft.data import Data
from regraft.merging.align import WeightMatching
from regraft.train import Recipe, train_recipe

RECIPE = Recipe(
    "mlp:in-256-256-classes", dense=True, optimizer="adam", lr=1e-3, batch_size=32, epochs=30, evolve="none"
)
UNITS, STEPS = 48, 21


def correlations(nets: Sequence[nn.Module], digits: Data) -> np.ndarray:
    """Of each unit's answers in one network with each other's in the other: [UNITS, UNITS]."""
    groups = graph.trace(nets[0])
    answers = [graph.activations(net, groups, digits.train.x)["fc1"][:, :UNITS].numpy() for net in nets]
    with np.errstate(invalid="ignore", divide="ignore"):  # units that answer nothing
        both = np.corrcoef(answers[0].T, answers[1].T)
    found: np.ndarray = np.nan_to_num(both[:UNITS, UNITS:])
    return found


@torch.no_grad()
def on_the_line(nets: Sequence[nn.Module], digits: Data) -> list[float]:
    """Test accuracy in percent of (1 - t) a + t b for t from 0 to 1."""
    a, b = nets
    found = []
    for t in np.linspace(0, 1, STEPS):
        between = copy.deepcopy(a)
        for parameter, end in zip(between.parameters(), b.parameters(), strict=True):
            parameter.lerp_(end, float(t))
        found.append(100 * measure.evaluate(between, digits.test)["accuracy"])
    return found


def draw(matrices: Sequence[np.ndarray], lines: Sequence[Sequence[float]], theme: Mapping[str, Any]) -> Any:
    """Two matrices and one panel of lines."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.2, 3.7))
    low, high = theme["lines"][1], theme["lines"][0]
    paper = "#f6f7f8" if theme["ink"] == "#1b2026" else "#191d23"
    colours = LinearSegmentedColormap.from_list("correlation", [low, paper, high])
    for left, matrix, words in zip((0.045, 0.345), matrices, ("as trained", "aligned"), strict=True):
        ax = figure.add_axes((left, 0.14, 0.27, 0.27 * 10.2 / 3.7))
        ax.imshow(matrix, cmap=colours, vmin=-1, vmax=1, interpolation="none")
        ax.set_title(words, color=theme["ink"], fontsize=11, loc="left")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_xlabel(f"{UNITS} units of network 2", color=theme["muted"], fontsize=10)
        ax.set_ylabel(f"{UNITS} units of network 1", color=theme["muted"], fontsize=10)
        for spine in ax.spines.values():
            spine.set(color=theme["muted"], linewidth=0.6)
    ax = figure.add_axes((0.70, 0.14, 0.275, 0.27 * 10.2 / 3.7))
    style(ax, theme, "between the two", "network 1 to network 2", "test accuracy, %")
    ts = np.linspace(0, 1, STEPS)
    names, colours_of = ("as trained", "aligned", "aligned, one scale"), (low, high, theme["lines"][2])
    for line, words, colour, above in zip(lines, names, colours_of, (-9, -8, 6), strict=True):
        ax.plot(ts, line, color=colour, linewidth=1.8)
        place: Any = {"xytext": (0, above), "textcoords": "offset points", "ha": "center", "va": "center"}
        ax.annotate(words, (0.5, line[STEPS // 2]), color=colour, fontsize=9.5, **place)
    ax.set_xticks([0, 0.5, 1], ["1", "half way", "2"])
    return figure


def main() -> None:
    torch.set_num_threads(1)
    digits = data.load("digits")
    a, b = (train_recipe(replace(RECIPE, seed=seed), digits).model for seed in range(2))
    plain = WeightMatching(normalise=False)([a, b])
    scaled = WeightMatching()([a, b])
    lines = [on_the_line(pair, digits) for pair in ((a, b), plain, scaled)]
    matrices = [correlations(pair, digits) for pair in ((a, b), scaled)]
    save_pictures("align", lambda theme: draw(matrices, lines, theme))
    print([round(line[STEPS // 2], 1) for line in lines])


if __name__ == "__main__":
    main()
