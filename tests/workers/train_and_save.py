"""A training in a process of its own, to be killed: arguments CHECKPOINTS OUT OPTIMIZER."""

import sys
import time

import torch

from regraft import Evolve, data, models, save, sparsify
from regraft.train import Checkpoint, Hooks, checkpoints, fit


def main(folder: str, out: str, optimizer_name: str) -> None:
    """Train for about a second, resuming from ``folder`` where that holds a checkpoint."""
    torch.set_num_threads(1)
    digits = data.load("digits", per_class=30, test_per_class=10)
    g = torch.Generator().manual_seed(0)
    model = sparsify(models.build("mlp:64-24-16-10", dropout=0.3, generator=g), density=0.3, generator=g)
    if optimizer_name == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    evolver = Evolve(rate="ldv", every=7, total=150, generator=g).attach(model, optimizer)
    fit(
        model, digits, epochs=10, optimizer=optimizer, batch_size=20, evolver=evolver, seed=1,
        callbacks=[Checkpoint(folder, every_steps=4), Hooks(step=lambda run: time.sleep(0.004))],
        resume=checkpoints.find(folder),
    )  # fmt: skip
    save(model, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
