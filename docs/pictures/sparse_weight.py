"""What a sparse weight stores, and what that is in bytes."""

from __future__ import annotations

from typing import Any

import torch

from pictures.canvas import Canvas, Theme
from regraft import SparseLinear, SparseWeight

SHAPE, COUNT = (5, 12), 9
LAYER, DENSITY = (1000, 1000), 0.05


def compute() -> tuple[SparseWeight, list[tuple[str, float]]]:
    """A small weight, and megabytes of a layer under training with momentum in three ways of storing it."""
    generator = torch.Generator().manual_seed(1)
    index = torch.randperm(SHAPE[0] * SHAPE[1], generator=generator)[:COUNT].sort().values
    weight = SparseWeight(SHAPE, index=index, values=torch.randn(COUNT, generator=generator))
    layer = SparseLinear.random(LAYER[1], LAYER[0], density=DENSITY, bias=False, generator=generator).weight
    size, floats = LAYER[0] * LAYER[1], 3  # values, their gradient, their momentum
    there = layer.values.nbytes * floats + layer.index.nbytes
    ways = [
        ("dense", size * 4 * floats),
        ("dense and a mask", size * (4 * floats + 1)),
        ("sparse weight", there),
    ]
    return weight, [(name, count / 1e6) for name, count in ways]


def draw(made: tuple[SparseWeight, list[tuple[str, float]]], theme: Theme) -> Canvas:
    """The matrix, the two lists under it, three bars."""
    weight, ways = made
    page = Canvas(4.0, theme)
    page.text(0.1, 3.75, f"a weight of {SHAPE[0]} x {SHAPE[1]} with {COUNT} connections", weight="bold")
    cells: dict[tuple[int, int], Any] = {}
    positions = weight.index.tolist()
    for p, v in zip(positions, weight.values.tolist(), strict=True):
        cells[divmod(p, SHAPE[1])] = 0 if v > 0 else 1
    page.grid(0.1, 2.35, 0.26, cells, SHAPE)
    for p in positions:
        i, j = divmod(p, SHAPE[1])
        at = (0.1 + (j + 0.5) * 0.26, 2.35 + (SHAPE[0] - 0.5 - i) * 0.26)
        page.text(
            *at,
            str(p),
            size=9,
            color="#ffffff" if theme["name"] == "light" else "#101418",
            ha="center",
            va="center",
        )
    row, column = divmod(positions[-1], SHAPE[1])
    words = f"position {positions[-1]} is\nrow {row}, column {column}:\n{row} x {SHAPE[1]} + {column}"
    page.text(3.4, 3.0, words, size=9.5, color="muted", va="center", linespacing=1.4)
    for row, (name, numbers) in enumerate(
        (("index", [str(p) for p in positions]), ("values", [f"{v:.1f}" for v in weight.values.tolist()]))
    ):
        y = 1.93 - 0.3 * row
        page.text(0.1, y + 0.07, name)
        for k, number in enumerate(numbers):
            value = weight.values[k].item()
            edge = {"edgecolor": theme["grid"], "linewidth": 0.8}
            page.box(0.8 + k * 0.45, y, 0.45, 0.26, "paper", **edge)
            colour = "ink" if row == 0 else (0 if value > 0 else 1)
            page.text(
                0.8 + (k + 0.5) * 0.45, y + 0.13, number, size=9.5, color=colour, ha="center", va="center"
            )
    page.text(
        0.1, 1.25, "1000 x 1000 at density 0.05: values, gradient and momentum", size=9.5, weight="bold"
    )
    longest = max(size for _, size in ways)
    for row, (name, size) in enumerate(ways):
        y = 0.88 - 0.34 * row
        page.text(0.1, y + 0.06, name, size=9.5)
        page.box(1.4, y, 2.7 * size / longest, 0.24, 0 if row == 2 else "muted")
        page.text(1.48 + 2.7 * size / longest, y + 0.06, f"{size:.1f} MB", size=9.5)
    return page
