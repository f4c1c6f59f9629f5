"""Which units of two networks stay when they are merged by neuron selection."""

from __future__ import annotations

from dataclasses import replace

import torch

from pictures.canvas import Canvas, Theme
from regraft import data, graph
from regraft.merging.neurons import activity
from regraft.probe import Probe
from regraft.train import Recipe, train_recipe

RECIPE = Recipe("mlp:64-48-32-10", density=0.15, epochs=15, lr=0.05, batch_size=50, rate="cosine")


def compute() -> list[list[float]]:
    """Activity of the first hidden layer's units, of two networks on half of the digits each."""
    digits = data.load("digits")
    halves = digits.train.split_off(0.5, torch.Generator().manual_seed(0))
    found = []
    for seed, half in enumerate(halves):
        owned = data.Data("digits", half, digits.test, digits.class_names)
        model = train_recipe(replace(RECIPE, seed=seed), owned).model
        scores = activity(model, graph.trace(model), Probe(batches=[(half.x, half.y)]))
        found.append(scores["fc1"].tolist())
    return found


def draw(made: list[list[float]], theme: Theme) -> Canvas:
    """A bar for each unit, both networks beside each other; the better half in colour, then those alone."""
    page = Canvas(3.5, theme)
    units = len(made[0])
    page.text(0.1, 3.25, f"side by side: {units} + {units} units, a score for each", weight="bold")
    kept = [sorted(range(units), key=lambda u, s=scores: -s[u])[: units // 2] for scores in made]
    top = page.plot((0.1, 2.05, 4.8, 1.1))
    below = page.plot((0.1, 0.55, 4.8, 1.1))
    at = units // 2
    for k, scores in enumerate(made):
        colours = [theme["lines"][k] if u in kept[k] else theme["grid"] for u in range(units)]
        top.bar([k * (units + 3) + u for u in range(units)], scores, width=0.8, color=colours)
        some = [scores[u] for u in sorted(kept[k])]
        below.bar(
            [at + 1 + k * len(some) + i for i in range(len(some))], some, width=0.8, color=theme["lines"][k]
        )
        page.text(0.2 + 2.45 * k, 1.88, f"network {k + 1}, on its own samples", size=9.5, color=k)
    for ax in (top, below):
        ax.set(xticks=[], yticks=[], xlim=(-1.5, 2 * units + 4), ylim=(0, max(map(max, made)) * 1.03))
        ax.grid(False)
        ax.spines["left"].set_visible(False)
    page.text(0.1, 1.45, f"{units} stay", weight="bold")
    page.text(0.1, 0.28, "each with its own inputs and scale: nothing is averaged", size=9.5, color="muted")
    return page
