"""What alignment does to two sparse networks of the digits."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from pictures.canvas import Canvas, Theme
from pictures.merge import first_layer
from regraft import Topology, data, densify, measure
from regraft.data import Data
from regraft.merging.align import WeightMatching
from regraft.train import Recipe, train_recipe

RECIPE = Recipe(
    "mlp:in-256-256-classes", density=0.1, allocate="uniform", lr=0.1, batch_size=32, epochs=20, evolve="set",
    rate="exd",
)  # fmt: skip
STEPS = 21
NAMES = ("as trained", "aligned", "aligned, one scale")


class Made(NamedTuple):
    """Topologies of both networks as trained and aligned, and accuracies (%) on the line between the two."""

    pairs: list[tuple[Topology, Topology]]
    lines: list[list[float]]


def compute() -> Made:
    """Train two networks, align the second to the first."""
    digits = data.load("digits")
    nets = [train_recipe(replace(RECIPE, seed=seed), digits).model for seed in range(2)]
    ways = [nets, WeightMatching(normalise=False)(nets), WeightMatching()(nets)]
    lines = [on_the_line(pair, digits) for pair in ways]
    print([round(line[STEPS // 2], 1) for line in lines])
    pairs = [(Topology.of(pair[0]), Topology.of(pair[1])) for pair in (ways[0], ways[2])]
    return Made(pairs, lines)


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


def draw(made: Made, theme: Theme) -> Canvas:
    """Two matrices, and lines under them."""
    page = Canvas(4.7, theme)
    for k, (pair, words) in enumerate(zip(made.pairs, NAMES, strict=False)):
        x = 0.1 + 2.5 * k
        a, b = (first_layer(t) for t in pair)
        page.pixels((x, 2.3, 2.1, 2.1), [(a, 0), (b, 1), (a & b, "ink")])
        page.text(x, 4.46, f"{words}: overlap {pair[0].jaccard(pair[1]):.2f}", size=9.5, weight="bold")
    ax = page.plot((0.6, 0.4, 4.1, 1.45), "test accuracy between the two, %")
    for row, (line, words) in enumerate(zip(made.lines, NAMES, strict=True)):
        colour = theme["lines"][(3, 2, 0)[row]]
        ax.plot(np.linspace(0, 1, STEPS), line, color=colour, linewidth=1.8)
        ax.text(0.01, 0.05 + 0.13 * row, words, color=colour, fontsize=9.5, transform=ax.transAxes)
    ax.set_xticks([0, 0.5, 1], ["network 1", "half way: average", "network 2"])
    ax.set(xlim=(-0.02, 1.02), ylim=(0, 103))
    return page
