"""How far activations shrink where five networks are averaged, and what repair does about it."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

import regraft
from pictures.canvas import Canvas, Theme
from regraft import data, measure
from regraft.merging import repair
from regraft.merging.align import WeightMatching
from regraft.train import Recipe, train_recipe

RECIPE = Recipe("mlp:in-256-256-classes", density=0.1, allocate="uniform", lr=0.1, batch_size=32)
NAMES = ("parents", "averaged", "and repaired", "aligned, averaged, repaired")


class Made(NamedTuple):
    """For the parents and three ways to merge them: spread of pre-activations by layer, and accuracy (%)."""

    spreads: list[list[float]]
    accuracies: list[float]


def compute() -> Made:
    """Train five, average, repair."""
    digits = data.load("digits")
    parents = [train_recipe(replace(RECIPE, seed=seed), digits).model for seed in range(5)]
    naive = regraft.merge(parents, weights="average")
    mended = repair(naive, parents, [digits.train.x[:500]])
    alike = WeightMatching(normalise=False)(parents)
    best = repair(regraft.merge(alike, weights="average"), alike, [digits.train.x[:500]])
    of_parents = torch.tensor([spread(p, digits.train.x) for p in alike]).mean(0).tolist()
    merged = (naive, mended, best)
    spreads = [of_parents, *(spread(m, digits.train.x) for m in merged)]
    accuracies = [100 * measure.evaluate(m, digits.test)["accuracy"] for m in (parents[0], *merged)]
    print([round(a, 1) for a in accuracies])
    return Made(spreads, accuracies)


@torch.no_grad()
def spread(model: nn.Module, x: torch.Tensor) -> list[float]:
    """Mean over units of the standard deviation of what each hidden layer makes."""
    model, found = copy.deepcopy(model), []
    for name in ("fc1", "fc2"):
        model.get_submodule(name).register_forward_hook(
            lambda _m, _i, out: found.append(out.std(dim=0).mean().item())
        )
    model(x)
    return found


def draw(made: Made, theme: Theme) -> Canvas:
    """A group of bars for each hidden layer."""
    page = Canvas(3.25, theme)
    page.text(0.1, 3.0, "how much a hidden unit varies over samples", weight="bold")
    ax = page.plot((0.5, 1.3, 4.35, 1.6))
    ways = len(made.spreads)
    for row, values in enumerate(made.spreads):
        places = [layer + (row - (ways - 1) / 2) * 0.2 for layer in range(len(values))]
        ax.bar(places, values, width=0.18, color=theme["lines"][row])
    ax.set_xticks(range(len(made.spreads[0])), [f"hidden layer {i + 1}" for i in range(len(made.spreads[0]))])
    ax.grid(False, axis="x")
    for row, (words, accuracy) in enumerate(zip(NAMES, made.accuracies, strict=True)):
        y = 0.82 - 0.22 * row
        page.box(0.5, y, 0.15, 0.15, row)
        page.text(0.75, y + 0.02, f"{words}: {accuracy:.0f} % of the test digits", size=9.5)
    return page
