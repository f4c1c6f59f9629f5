"""A round: clients with samples and topologies of their own, a server that merges what they send."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from pictures.canvas import Canvas, Theme
from pictures.distances import where
from regraft import Topology, data, models, sparsify
from regraft.federated import Dirichlet, Local, Plan, SparseMerge, Update, encode, local_round, partitioned

CLIENTS, ROUNDS, SHOWN = 4, 3, 32  # units of the first layer that are shown


class Made(NamedTuple):
    """First layers of each client's network and of the merged one, samples by class, and bytes."""

    clients: list[np.ndarray]
    classes: list[list[int]]
    merged: np.ndarray
    sent: int
    dense: int


def compute() -> Made:
    """A few rounds of four clients; the last one is shown."""
    digits = data.load("digits")
    g = torch.Generator().manual_seed(4)
    parts = partitioned(digits.train, Dirichlet(0.3), CLIENTS, g)
    model = sparsify(models.build("mlp:64-64-10", generator=g), density=0.1, generator=g)
    local = Local(epochs=2, batch_size=20, lr=0.1, rate=0.4, rounds=ROUNDS)
    updates: list[Update] = []
    for number in range(ROUNDS):
        under_way = SparseMerge().begin(model, number)
        updates = [
            local_round(model, part, local, round=number, client=str(c)) for c, part in enumerate(parts)
        ]
        refused = [under_way.add(update) for update in updates]
        if any(refused):
            raise RuntimeError(f"updates were refused: {refused}")
        model = under_way.finish()
    plan = Plan.of(model)
    dense = 4 * sum(p.numel() for p in models.build("mlp:64-64-10").parameters())
    return Made(
        [where(update.topology(plan))[:SHOWN] for update in updates],
        [torch.bincount(part.y, minlength=10).tolist() for part in parts],
        where(Topology.of(model))[:SHOWN],
        len(encode(updates[0], plan)),
        dense,
    )


def draw(made: Made, theme: Theme) -> Canvas:
    """Clients on top, the server below."""
    page = Canvas(4.25, theme)
    most = max(map(max, made.classes))
    for c, (there, counts) in enumerate(zip(made.clients, made.classes, strict=True)):
        x = 0.1 + 1.23 * c
        page.text(x, 4.0, f"client {c + 1}", size=9.5, color=c, weight="bold")
        for k, count in enumerate(counts):
            page.box(x + 0.11 * k, 3.42, 0.09, 0.01 + 0.48 * count / most, c)
        page.pixels((x, 2.62, 1.1, 0.7), [(there, c)])
        page.arrow((x + 0.55, 2.55), (1.7 + 0.5 * c, 2.02), color=c, mutation_scale=11)
    up = f"each sends\npositions\nand values:\n{made.sent / 1000:.1f} kB\n(dense: {made.dense / 1000:.0f} kB)"
    page.text(0.1, 1.35, up, size=9.5, va="center", linespacing=1.3)
    origins = [(made.merged & there, c) for c, there in enumerate(made.clients)]
    several = np.sum(made.clients, axis=0) > 1
    page.pixels((1.4, 0.5, 2.2, 1.4), [*origins, (made.merged & several, "ink")])
    down = "the server\nmerges, prunes\nto the density,\nsends back\nwhat changed"
    page.text(3.75, 1.2, down, size=9.5, va="center", linespacing=1.3)
    shade = "black" if theme["name"] == "light" else "white"
    page.text(
        0.1,
        0.16,
        f"bars: samples of each digit; {shade}: connections of several clients",
        size=9.5,
        color="muted",
    )
    return page
