"""What belongs to one unit: the row that makes it, its bias, the column that reads it."""

from __future__ import annotations

import torch
from torch import Tensor

from pictures.canvas import Canvas, Theme
from regraft import graph, models

SIZES = (6, 5, 4)
UNIT, OTHER = 1, 3


def compute() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A network 6-5-4, and the same with two hidden units exchanged."""
    model = models.build("mlp:6-5-4", generator=torch.Generator().manual_seed(0))
    order = torch.arange(SIZES[1])
    order[UNIT], order[OTHER] = OTHER, UNIT
    turned = graph.take(model, graph.trace(model), {"fc1": order})
    x = torch.randn(8, SIZES[0], generator=torch.Generator().manual_seed(1))
    assert torch.allclose(model(x), turned(x), atol=1e-6), "another order is the same function"
    return model.state_dict(), turned.state_dict()


def draw(made: tuple[dict[str, Tensor], dict[str, Tensor]], theme: Theme) -> Canvas:
    """Both networks; the two units' rows and columns in colour."""
    page = Canvas(3.3, theme)
    cell = 0.2
    for k, title in enumerate(("as it is", "units 1 and 3 exchanged: the same function")):
        y = 1.98 - 1.6 * k
        here = {UNIT: 0, OTHER: 1} if k == 0 else {UNIT: 1, OTHER: 0}
        page.text(0.1, y + 1.08, title, weight="bold")
        rows = {(u, j): c for u, c in here.items() for j in range(SIZES[0])}
        page.grid(0.75, y, cell, rows, (SIZES[1], SIZES[0]))
        page.grid(2.35, y, cell, {(u, 0): c for u, c in here.items()}, (SIZES[1], 1))
        columns = {(i, u): c for u, c in here.items() for i in range(SIZES[2])}
        page.grid(3.2, y + cell, cell, columns, (SIZES[2], SIZES[1]))
        for u in range(SIZES[1]):
            at = y + (SIZES[1] - 0.5 - u) * cell
            page.text(0.65, at, str(u), size=9, color="muted", ha="right", va="center")
            page.text(
                3.2 + (u + 0.5) * cell, y + cell - 0.04, str(u), size=9, color="muted", ha="center", va="top"
            )
    for x, words in ((1.35, "makes: a row"), (2.45, "bias"), (3.7, "read by: a column")):
        page.text(x, 0.13, words, size=9.5, color="muted", ha="center")
    return page
