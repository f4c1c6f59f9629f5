"""The three steps of a merge, on one small weight."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import nn

from pictures.canvas import Canvas, Theme
from regraft import Topology, merge, sparsify

SHAPE, COUNT = (8, 8), 12


class Made(NamedTuple):
    """Positions and values of each parent, of the union under the magnitude rule, and of what stays."""

    parents: list[dict[int, float]]
    union: dict[int, float]
    kept: dict[int, float]


def entries(model: nn.Module) -> dict[int, float]:
    """Value at each position of the first weight."""
    dense = copy.deepcopy(model)[0].weight.dense().detach().flatten()
    return {p: dense[p].item() for p in next(iter(Topology.of(model).values())).index.tolist()}


def compute() -> Made:
    """Merge three random ones."""
    parents = []
    for seed in range(3):
        generator = torch.Generator().manual_seed(10 + seed)
        model = nn.Sequential(nn.Linear(SHAPE[1], SHAPE[0], bias=False))
        with torch.no_grad():
            model[0].weight.normal_(generator=generator)
        density = COUNT / (SHAPE[0] * SHAPE[1])
        parents.append(sparsify(model, density=density, allocate="uniform", generator=generator))
    union, kept = (merge(parents, weights="magnitude", density=d) for d in (None, "keep"))
    return Made([entries(p) for p in parents], entries(union), entries(kept))


def draw(made: Made, theme: Theme) -> Canvas:
    """Parents on top; union, and what stays, below."""
    page = Canvas(4.05, theme)
    small, cell = 0.145, 0.2
    for k, parent in enumerate(made.parents):
        x = 0.1 + 1.65 * k
        page.text(x, 3.8, f"network {k + 1}: {len(parent)}", color=k, size=9.5, weight="bold")
        page.grid(x, 2.56, small, {divmod(p, SHAPE[1]): k for p in parent}, SHAPE)
    owner = {p: largest(made.parents, p) for p in made.union}
    several = {p for p in made.union if sum(p in parent for parent in made.parents) > 1}
    for k, (title, there) in enumerate(
        (("1. union, 2. one value each", made.union), ("3. the strongest stay", made.kept))
    ):
        x = 0.1 + 2.55 * k
        page.text(x, 2.14, f"{title}: {len(there)}", size=9.5, weight="bold")
        page.grid(x, 0.42, cell, {}, SHAPE)
        for p in there:
            i, j = divmod(p, SHAPE[1])
            size = 0.05 + 0.13 * min(abs(there[p]) / 2, 1)
            left, bottom = x + j * cell, 0.42 + (SHAPE[0] - 1 - i) * cell
            page.box(left + (cell - size) / 2, bottom + (cell - size) / 2, size, size, owner[p])
            if p in several:
                page.box(left, bottom, cell, cell, "none", edgecolor=theme["ink"], linewidth=1.2)
    page.arrow((1.8, 1.22), (2.55, 1.22))
    page.text(0.1, 0.12, "square: size of the value; frame: several networks had it", size=9.5, color="muted")
    return page


def largest(parents: list[dict[int, float]], position: int) -> int:
    """The network whose value the magnitude rule takes."""
    return max(range(len(parents)), key=lambda k: abs(parents[k].get(position, 0.0)))
