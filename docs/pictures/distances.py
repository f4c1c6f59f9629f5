"""What two topologies share, and the distance that chance gives."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pictures.canvas import Canvas, Theme
from regraft import Topology, sparsify
from regraft.topology import expected_nnstd

SHAPE, DENSITY = (16, 24), 0.3


def compute() -> tuple[Topology, Topology]:
    """Two random topologies of one small layer."""
    found = []
    for seed in range(2):
        layer = nn.Sequential(nn.Linear(SHAPE[1], SHAPE[0], bias=False))
        generator = torch.Generator().manual_seed(seed)
        found.append(Topology.of(sparsify(layer, density=DENSITY, allocate="uniform", generator=generator)))
    return found[0], found[1]


def where(topology: Topology) -> np.ndarray:
    """bool [rows, columns] of the first weight."""
    connections = next(iter(topology.values()))
    there = np.zeros(connections.shape, dtype=bool)
    there.flat[connections.index.numpy()] = True
    return there


def draw(pair: tuple[Topology, Topology], theme: Theme) -> Canvas:
    """Both matrices over each other, counts beside them, the curve of chance below."""
    a, b = pair
    page = Canvas(4.35, theme)
    first, second = where(a), where(b)
    page.text(0.1, 4.1, "two topologies over each other", weight="bold")
    page.pixels((0.1, 2.35, 2.5, 1.65), [(first, 0), (second, 1), (first & second, "ink")])
    only_a, only_b, both = (a - b).nnz, (b - a).nnz, (a & b).nnz
    for row, (words, colour) in enumerate(
        ((f"{only_a} only in the first", 0), (f"{only_b} only in the second", 1), (f"{both} in both", "ink"))
    ):
        page.box(2.8, 3.77 - 0.27 * row, 0.15, 0.15, colour)
        page.text(3.02, 3.78 - 0.27 * row, words, size=9.5)
    sum_of = f"{only_a} + {only_b}"
    page.text(2.8, 2.9, "NNSTD = unique / all", size=9.5)
    page.text(2.8, 2.65, f"= ({sum_of}) / ({sum_of} + {both})", size=9.5)
    page.text(2.8, 2.4, f"= {a.nnstd(b):.2f}", size=9.5, weight="bold")
    ax = page.plot(
        (0.65, 0.55, 4.2, 1.35), "what two independent topologies have", "density of both", "NNSTD"
    )
    density = np.linspace(0.005, 1, 200)
    ax.plot(density, [expected_nnstd(1 - d) for d in density], color=theme["lines"][2], linewidth=1.8)
    ax.plot([DENSITY], [a.nnstd(b)], "o", color=theme["ink"], markersize=6)
    ax.annotate(
        "the two above",
        (DENSITY, a.nnstd(b)),
        (8, 3),
        textcoords="offset points",
        fontsize=9.5,
        color=theme["ink"],
    )
    ax.set(xlim=(0, 1), ylim=(0, 1.05))
    return page
