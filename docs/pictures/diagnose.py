"""Connections that lie on no path from an input to an output."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from pictures.canvas import Canvas, Theme
from regraft import Topology, diagnose, sparsify

SIZES = (7, 6, 6, 4)


def compute() -> tuple[Topology, dict[str, set[int]]]:
    """A small sparse network, and by layer the positions through which something flows."""
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(SIZES):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    model = sparsify(nn.Sequential(*layers[:-1]), density=0.2, allocate="uniform",
                     generator=torch.Generator().manual_seed(16))  # fmt: skip
    found = diagnose.connectivity(model)
    return Topology.of(model), {n: set(t.index.tolist()) for n, t in found.topology.items()}


def draw(made: tuple[Topology, dict[str, set[int]]], theme: Theme) -> Canvas:
    """Units as dots in columns, connections as lines."""
    topology, effective = made
    page = Canvas(2.9, theme)

    def place(layer: int, unit: int) -> tuple[float, float]:
        return 0.6 + 1.25 * layer, 2.35 - (unit + 0.5) * 1.9 / SIZES[layer]

    kept = {(0, u): False for u in range(SIZES[0])}
    for layer, (name, connections) in enumerate(topology.items()):
        for p in connections.index.tolist():
            out, source = divmod(p, SIZES[layer])
            (x0, y0), (x1, y1) = place(layer, source), place(layer + 1, out)
            alive = p in effective[name]
            look = {"color": theme["lines"][0 if alive else 1], "linewidth": 2 if alive else 1.5}
            page.page.plot([x0, x1], [y0, y1], linestyle="-" if alive else (0, (3, 2)), **look)
            if alive:
                kept[layer, source] = kept[layer + 1, out] = True
    for layer, size in enumerate(SIZES):
        for unit in range(size):
            colour = theme["ink"] if kept.get((layer, unit)) else theme["grid"]
            page.page.plot(*place(layer, unit), "o", markersize=7, color=colour)
        words = ("inputs", "hidden", "hidden", "outputs")[layer]
        page.text(0.6 + 1.25 * layer, 2.5, words, color="muted", ha="center")
    total = sum(len(c.index) for c in topology.values())
    carry = sum(len(p) for p in effective.values())
    page.page.plot([0.1, 0.45], [0.23, 0.23], color=theme["lines"][0], linewidth=2)
    page.text(0.55, 0.18, f"effective: {carry} of {total}")
    page.page.plot([2.3, 2.65], [0.23, 0.23], color=theme["lines"][1], linewidth=1.5, linestyle=(0, (3, 2)))
    page.text(2.75, 0.18, "comes from or goes nowhere")
    return page
