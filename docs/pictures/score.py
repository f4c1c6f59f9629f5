"""A score beside the values of each layer, and one cut through all of them."""

from __future__ import annotations

import torch

from pictures.canvas import Canvas, Theme
from regraft import models, scores, sparsify
from regraft.losses import CrossEntropy
from regraft.probe import Probe
from regraft.select import Globally

DENSITY = 0.3


def compute() -> tuple[dict[str, list[float]], dict[str, set[int]]]:
    """SNIP's scores of a network 8-6-4-3, and the entries that a global selection keeps."""
    generator = torch.Generator().manual_seed(2)
    model = sparsify(models.build("mlp:8-6-4-3", generator=generator), density=1.0)
    x, y = torch.randn(60, 8, generator=generator), torch.arange(60) % 3
    found = scores.snip(model, Probe(CrossEntropy(), [(x, y)], generator))
    kept = Globally(DENSITY)(found, {n: len(v) for n, v in found.items()}, generator=generator)
    return {n: v.tolist() for n, v in found.items()}, {n: set(k.tolist()) for n, k in kept.items()}


def draw(made: tuple[dict[str, list[float]], dict[str, set[int]]], theme: Theme) -> Canvas:
    """A bar for each connection; those above the cut in colour."""
    found, kept = made
    page = Canvas(2.85, theme)
    page.text(0.1, 2.6, "one number for each connection, one cut for all layers", weight="bold")
    ax = page.plot((0.1, 0.75, 4.8, 1.65))
    start, gap = 0, 3
    everything = [(s, i in kept[n]) for n, vector in found.items() for i, s in enumerate(vector)]
    cut = (min(s for s, k in everything if k) + max(s for s, k in everything if not k)) / 2
    for layer, (name, vector) in enumerate(found.items()):
        stays = [i in kept[name] for i in range(len(vector))]
        colours = [theme["lines"][layer] if k else theme["grid"] for k in stays]
        ax.bar(range(start, start + len(vector)), vector, width=0.8, color=colours)
        words = f"{name.removesuffix('.weight')}: {sum(stays)} of {len(vector)}"
        ax.text(
            start - 0.5,
            -0.06,
            words,
            transform=ax.get_xaxis_transform(),
            fontsize=10,
            va="top",
            color=theme["lines"][layer],
        )
        start += len(vector) + gap + 6 * (layer == 1)
    ax.axhline(cut, color=theme["ink"], linewidth=1.2, linestyle=(0, (4, 2)))
    ax.text(-1, cut * 1.15, "cut", fontsize=10, color=theme["ink"])
    ax.set(xticks=[], yticks=[], xlim=(-1.5, start + 4))
    ax.grid(False)
    ax.spines["left"].set_visible(False)
    count = sum(k for _, k in everything)
    page.text(
        0.1,
        0.15,
        f"density {DENSITY:g}: exactly {count} of {len(everything)} stay, wherever they are",
        size=9.5,
        color="muted",
    )
    return page
