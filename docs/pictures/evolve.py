"""One update of a topology, and where a network looks while it evolves."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pictures.canvas import Canvas, Theme
from regraft import Evolve, Topology, data, sparsify

SHAPE, COUNT, RATE = (6, 10), 20, 0.3
EPOCHS = (0, 20, 100)


def compute() -> tuple[tuple[Topology, Topology, np.ndarray], list[np.ndarray]]:
    """A small weight before and after an update, with its values before; patterns of a network at EPOCHS."""
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Linear(SHAPE[1], SHAPE[0], bias=False))
    with torch.no_grad():
        model[0].weight.normal_(generator=generator)
    sparsify(model, density=COUNT / (SHAPE[0] * SHAPE[1]), allocate="uniform", generator=generator)
    before, values = Topology.of(model), model[0].weight.dense().detach().numpy().copy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolver = Evolve(drop="magnitude", rate=RATE, every=1, generator=generator).attach(model, optimizer)
    evolver.step()
    return (before, Topology.of(model), values), patterns()


def patterns() -> list[np.ndarray]:
    """Connections of each pixel of the digits, [8, 8], as 64-300-10 trains; last, its standard deviation."""
    digits = data.load("digits", flatten=True)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 10))
    sparsify(model, density=0.1, allocate="uniform", init="rescale", generator=generator)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-3)
    loader = data.Loader(digits.train, batch_size=50, generator=generator)
    evolver = Evolve(rate=0.3, every=len(loader), generator=generator).attach(model, optimizer)
    found = []
    for epoch in range(max(EPOCHS) + 1):
        if epoch in EPOCHS:
            found.append(Topology.of(model).connectivity_pattern().reshape(8, 8).numpy())
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            evolver.step()
    return [*found, digits.train.x.std(dim=0).reshape(8, 8).numpy()]


def draw(made: tuple[tuple[Topology, Topology, np.ndarray], list[np.ndarray]], theme: Theme) -> Canvas:
    """Three states of the weight above, four patterns below."""
    (before, after, values), pictures = made
    page = Canvas(3.75, theme)
    cell, old = 0.145, set(next(iter(before.values())).index.tolist())
    new = set(next(iter(after.values())).index.tolist())
    dropped = set(sorted(old, key=lambda p: abs(values.flat[p]))[: round(RATE * len(old))])
    titles = (
        f"{len(old)} connections",
        f"drop the {len(dropped)} smallest",
        f"grow {len(dropped)} elsewhere",
    )
    for k, title in enumerate(titles):
        cells = {divmod(p, SHAPE[1]): 0 for p in old}
        if k == 1:
            cells.update({divmod(p, SHAPE[1]): 1 for p in dropped})
        if k == 2:
            cells = {divmod(p, SHAPE[1]): 0 if p in old - dropped else 2 for p in new}
        x = 0.1 + 1.68 * k
        page.text(x, 3.45, title, size=9.5, color=("ink", 1, 2)[k], weight="bold")
        page.grid(x, 2.48, cell, cells, SHAPE)
        if k < 2:
            page.arrow((x + 1.48, 2.9), (x + 1.65, 2.9), mutation_scale=11)
    page.text(
        0.1, 2.05, "repeated once an epoch: connections of each pixel of the digits", weight="bold", size=9.5
    )
    low, high = min(p.min() for p in pictures[:-1]), max(p.max() for p in pictures[:-1])
    colours = "Blues" if theme["name"] == "light" else "Blues_r"
    names = ["at the start", *(f"after {epoch} epochs" for epoch in EPOCHS[1:]), "pixel varies"]
    for k, (words, pattern) in enumerate(zip(names, pictures, strict=True)):
        x = 0.1 + 1.23 * k
        ends = (low, high) if k < len(EPOCHS) else (pattern.min(), pattern.max())
        page.image((x, 0.78, 1.1, 1.1), pattern, cmap=colours, vmin=ends[0], vmax=ends[1])
        page.text(x, 0.55, words, size=9.5, color="muted")
    page.text(
        0.1,
        0.18,
        "as many connections as before; they come to follow the pixels that vary",
        size=9,
        color="muted",
    )
    return page
