"""Draw what alignment does to two sparse networks of the digits: docs/images/align-light.svg and -dark.svg.

    python benchmarks/alignment_picture.py

Trains two 64-256-256-10 networks of density .1 whose topologies evolve (half a minute), aligns the second to
the first by their weights, and draws both first-layer topologies over each other, before and after, and the
test accuracy on the straight line between the two.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import nn

from _common import save_pictures, style
from regraft import Topology, data, densify, measure
from regraft.data import Data
from regraft.merging.align import WeightMatching
from regraft.train import Recipe, train_recipe

RECIPE = Recipe(
    "mlp:in-256-256-classes", density=0.1, allocate="uniform", lr=0.1, batch_size=32, epochs=20, evolve="set",
    rate="exd",
)  # fmt: skip
UNITS, STEPS = 64, 21
NAMES = ("as trained", "aligned", "aligned, one scale")


def first_layers(nets: Sequence[nn.Module]) -> list[np.ndarray]:
    """Which of the first UNITS units has which inputs, in each network: bool [UNITS, inputs]."""
    found = []
    for net in nets:
        connections = Topology.of(net)["fc1.weight"]
        there = np.zeros(connections.shape, dtype=bool)
        there.flat[connections.index.numpy()] = True
        found.append(there[:UNITS])
    return found


@torch.no_grad()
def on_the_line(nets: Sequence[nn.Module], digits: Data) -> list[float]:
    """Test accuracy in percent of (1 - t) a + t b for t from 0 to 1."""
    a, b = (densify(copy.deepcopy(net)) for net in nets)
    found = []
    for t in np.linspace(0, 1, STEPS):
        between = copy.deepcopy(a)
        for parameter, end in zip(between.parameters(), b.parameters(), strict=True):
            parameter.lerp_(end, float(t))
        found.append(100 * measure.evaluate(between, digits.test)["accuracy"])
    return found


def draw(
    pairs: Sequence[Sequence[nn.Module]], lines: Sequence[Sequence[float]], theme: Mapping[str, Any]
) -> Any:
    """Two matrices and one panel of lines."""
    figure = Figure(figsize=(10.2, 3.7))
    first, second = theme["lines"][:2]
    for left, nets, words in ((0.02, pairs[0], NAMES[0]), (0.325, pairs[2], "aligned")):
        a, b = first_layers(nets)
        colours = np.full((*a.shape, 3), to_rgb("#f6f7f8" if theme["ink"] == "#1b2026" else "#191d23"))
        colours[a], colours[b], colours[a & b] = to_rgb(first), to_rgb(second), to_rgb(theme["ink"])
        ax = figure.add_axes((left, 0.14, 0.28, 0.28 * 10.2 / 3.7))
        ax.imshow(colours, interpolation="none")
        overlap = Topology.of(nets[0]).jaccard(Topology.of(nets[1]))
        ax.set_title(f"{words}: overlap {overlap:.2f}", color=theme["ink"], fontsize=11, loc="left")
        ax.set_xticks([])
        ax.set_yticks([])
        for spine in ax.spines.values():
            spine.set(color=theme["muted"], linewidth=0.6)
    ax = figure.add_axes((0.68, 0.14, 0.3, 0.28 * 10.2 / 3.7))
    style(ax, theme, "between the two", "", "test accuracy, %")
    for row, (line, words) in enumerate(zip(lines, NAMES, strict=True)):
        colour = theme["lines"][(3, 2, 0)[row]]
        ax.plot(np.linspace(0, 1, STEPS), line, color=colour, linewidth=1.8)
        ax.text(0.02, 0.03 + 0.08 * row, words, color=colour, fontsize=9, transform=ax.transAxes)
    ax.set_xticks([0, 0.5, 1], ["network 1", "half way", "network 2"])
    return figure


def main() -> None:
    torch.set_num_threads(1)
    digits = data.load("digits")
    nets = [train_recipe(replace(RECIPE, seed=seed), digits).model for seed in range(2)]
    pairs = [nets, WeightMatching(normalise=False)(nets), WeightMatching()(nets)]
    lines = [on_the_line(pair, digits) for pair in pairs]
    save_pictures("align", lambda theme: draw(pairs, lines, theme))
    print([round(line[STEPS // 2], 1) for line in lines])


if __name__ == "__main__":
    main()
