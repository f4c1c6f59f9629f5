"""Draw the three stages of a merge by gates, from a real run: gates-merge-light.svg and -dark.svg.

    python benchmarks/gates_picture.py

Two networks 64-24-24-10 of scikit-learn's digits; the second layer's weights side by side, after 30 epochs
with gates, and compressed. Within each network units are ordered by how likely their gate is open.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from _common import save_pictures, set_threads
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


def run() -> Stages:
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


def draw(stages: Stages, theme: Mapping[str, Any]) -> Figure:
    """Three matrices in a row; gates as strips along the second."""
    figure = Figure(figsize=(9.4, 3.9))
    side = 0.25
    look: dict[str, Any] = {"cmap": _colours(theme), "vmin": 0.0, "vmax": 0.25, "interpolation": "nearest"}
    titles = ("1. side by side", "2. gates, weights across", "3. the units most likely open")
    for i, (title, weight) in enumerate(
        zip(titles, (stages.concatenated, stages.gated, stages.compressed), strict=True)
    ):
        size = 0.60 if i < 2 else 0.30
        axes = figure.add_axes((0.04 + 0.325 * i, 0.12 + (0.60 - size), side * size / 0.6, size))
        axes.imshow(np.abs(weight.numpy()), aspect="auto", **look)
        _frame(axes, theme)
        figure.text(0.04 + 0.325 * i, 0.90, title, color=theme["ink"], fontsize=11)
        words = f"{weight.shape[0]} units made, {weight.shape[1]} read"
        figure.text(0.04 + 0.325 * i, 0.05 + (0.60 - size), words, color=theme["muted"], fontsize=9)
        if i == 1:
            _strips(figure, (0.04 + 0.325, 0.12, side, 0.60), stages, theme)
    return figure


def _strips(
    figure: Figure, box: tuple[float, float, float, float], stages: Stages, theme: Mapping[str, Any]
) -> None:
    left, bottom, width, height = box
    look: dict[str, Any] = {
        "cmap": _colours(theme, theme["lines"][1]),
        "vmin": 0.0,
        "vmax": 1.0,
        "aspect": "auto",
    }
    above = figure.add_axes((left, bottom + height + 0.02, width, 0.04))
    above.imshow(stages.reads.numpy()[None], **look)
    beside = figure.add_axes((left + width + 0.008, bottom, 0.016, height))
    beside.imshow(stages.makes.numpy()[:, None], **look)
    for axes in (above, beside):
        _frame(axes, theme)
    figure.text(left + width + 0.008, bottom + height + 0.02, "gates", color=theme["lines"][1], fontsize=9)


def _frame(axes: Any, theme: Mapping[str, Any]) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(theme["grid"])


def _colours(theme: Mapping[str, Any], line: str | None = None) -> LinearSegmentedColormap:
    """From nothing to a colour of the theme."""
    colour = theme["lines"][0] if line is None else line
    return LinearSegmentedColormap.from_list("gates", [colour + "00", colour + "ff"])


def main() -> None:
    """Run and draw."""
    set_threads(1)
    stages = run()
    save_pictures("gates-merge", lambda theme: draw(stages, theme))


if __name__ == "__main__":
    main()
