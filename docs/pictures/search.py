"""Which tiles of a gradient the exact search computes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from pictures.canvas import Canvas, Theme
from regraft import search

ROWS, COLUMNS, SAMPLES, BEST, TILE = 160, 320, 64, 60, 8


class Made(NamedTuple):
    """Sorted by norm: positions found, their least product, and the bound of each tile."""

    found: np.ndarray
    least: float
    bounds: np.ndarray


def compute() -> Made:
    """The largest products of vectors as they lie behind ReLU: few are long."""
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(ROWS, SAMPLES, generator=g) * torch.rand(ROWS, 1, generator=g) ** 3
    columns = torch.randn(COLUMNS, SAMPLES, generator=g).relu() * torch.rand(COLUMNS, 1, generator=g) ** 3
    rows, columns = (v[v.norm(dim=1).argsort(descending=True)] for v in (rows, columns))
    found = search.exact(rows, columns, BEST, torch.empty(0, dtype=torch.int64))
    bounds = torch.outer(rows.norm(dim=1)[::TILE], columns.norm(dim=1)[::TILE])
    return Made(found.index.numpy(), float(found.products.abs().min()), bounds.numpy())


def draw(made: Made, theme: Theme) -> Canvas:
    """Tiles above the bound tinted, the rest empty; a dot for each position found."""
    page = Canvas(3.35, theme)
    computed = made.bounds >= made.least
    page.text(
        0.1, 3.1, "a layer's gradient, units sorted by the norm of their vectors", size=9.5, weight="bold"
    )
    place = (0.45, 0.95, 4.4, 1.85)
    ax = page.pixels(place, [(computed, theme["grid"])])
    i, j = np.divmod(made.found, COLUMNS)
    ax.plot(j / TILE - 0.5, i / TILE - 0.5, "o", markersize=3, color=theme["lines"][1])
    page.text(0.45, 2.86, "inputs: long vectors at the left", size=9, color="muted")
    page.text(0.32, 1.9, "outputs", size=9, color="muted", rotation=90, ha="center", va="center")
    words = "no product here can reach\nthe best: never computed"
    ax.text(24, 12, words, fontsize=9.5, color=theme["muted"], ha="center", linespacing=1.4)
    page.box(0.45, 0.6, 0.16, 0.16, theme["grid"])
    page.text(0.7, 0.62, f"{computed.mean():.0%} of the tiles: bound |r| |c| large enough", size=9.5)
    page.page.plot([0.53], [0.33], "o", markersize=5, color=theme["lines"][1])
    page.text(0.7, 0.28, f"the {BEST} connections to grow, of {ROWS * COLUMNS:,} positions", size=9.5)
    return page
