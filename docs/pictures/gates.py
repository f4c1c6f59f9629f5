"""The three stages of a merge by gates, from a real run.

Two networks 64-24-24-10 of the digits; the second layer's weights side by side, after 30 epochs with gates,
and compressed. Within each network units are ordered by how likely their gate is open.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from torch import Tensor

from pictures.canvas import Canvas, Theme
from regraft import data as datasets
from regraft import gates, graph
from regraft.data import Loader
from regraft.gates.api import GATE_TRAVEL
from regraft.gates.stages import Plan, train_gates
from regraft.losses import CrossEntropy
from regraft.train import Recipe, train_recipe

UNITS, EPOCHS = 24, 30


class Stages(NamedTuple):
    """The second layer's weight in each stage, and the gates of what it reads and of what it makes."""

    concatenated: Tensor
    gated: Tensor
    reads: Tensor
    makes: Tensor
    compressed: Tensor


def compute() -> Stages:
    """Merge two networks, and look on."""
    digits = datasets.load("digits")
    recipe = Recipe(model="mlp:64-24-24-10", dense=True, epochs=20, lr=0.05, momentum=0.9)
    pair = [train_recipe(Recipe(**{**vars(recipe), "seed": seed}), digits).model for seed in range(2)]
    big, groups = graph.concatenate(pair, graph.trace(pair[0]))
    before = big.get_parameter("fc2.weight").detach().clone()
    gated = gates.Gated(big, groups)
    batches = Loader(digits.train, 50, generator=torch.Generator().manual_seed(0))
    plan = Plan(batches, CrossEntropy(), 0.05, 0.9, 1e-3, 0, None, None, True)
    rate = GATE_TRAVEL / (plan.steps * EPOCHS)
    train_gates(gated, plan, gates.Rising.within(EPOCHS), rate, EPOCHS, 0.5)
    opened = gated.gates.split(gated.gates.open_probability().detach())
    order = {name: _by_network(p) for name, p in opened.items()}
    small = gates.compress(gated, dict.fromkeys(opened, UNITS))

    def where(weight: Tensor) -> Tensor:
        return weight[order["fc2"]][:, order["fc1"]]

    return Stages(
        where(before), where(big.get_parameter("fc2.weight").detach()), opened["fc1"][order["fc1"]],
        opened["fc2"][order["fc2"]], small.get_parameter("fc2.weight").detach(),
    )  # fmt: skip


def _by_network(probability: Tensor) -> Tensor:
    """Each network's units from the most likely open to the least."""
    return torch.cat([
        part.argsort(descending=True) + i * UNITS for i, part in enumerate(probability.view(2, UNITS))
    ])  # fmt: skip


def draw(stages: Stages, theme: Theme) -> Canvas:
    """Two large matrices on top, gates as strips along the second; the small one below."""
    page = Canvas(4.3, theme)
    large, small = 2.0, 1.0
    look: dict[str, Any] = {"cmap": _colours(theme["lines"][0]), "vmin": 0.0, "vmax": 0.25}
    gate: dict[str, Any] = {"cmap": _colours(theme["lines"][1]), "vmin": 0.0, "vmax": 1.0}
    titles = ("1. side by side", "2. with gates", "3. half of the units")
    weights = (stages.concatenated, stages.gated, stages.compressed)
    places = ((0.1, 1.75, large), (2.6, 1.75, large), (0.1, 0.25, small))
    for title, weight, (x, y, side) in zip(titles, weights, places, strict=True):
        page.image((x, y, side, side), np.abs(weight.numpy()), **look)
        above = y + side + (0.24 if title == titles[1] else 0.07)
        page.text(x, above, title, weight="bold")
    page.image((2.6, 3.8, large, 0.1), stages.reads.numpy()[None], **gate)
    page.image((4.65, 1.75, 0.1, large), stages.makes.numpy()[:, None], **gate)
    page.text(4.75, 3.99, "gates", size=9.5, color=1, ha="right")
    words = (
        "Rows: units that the layer makes; columns:\nunits that it reads. Darker: larger weight.\n"
        "Orange: how likely a unit's gate is open."
    )
    if theme["name"] == "dark":
        words = words.replace("Darker", "Brighter")
    page.text(1.3, 0.75, words, size=9.5, color="muted", va="center", linespacing=1.5)
    page.arrow((2.15, 2.75), (2.5, 2.75))
    page.arrow((2.6, 1.65), (1.75, 1.4), mutation_scale=12)
    return page


def _colours(colour: str) -> LinearSegmentedColormap:
    """From nothing to a colour."""
    return LinearSegmentedColormap.from_list("gates", [colour + "00", colour + "ff"])
