"""A small problem that a small network learns in a moment, and a training with everything that has state."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from regraft import Evolve, models, sparsify
from regraft.data import Data, Split
from regraft.train import Callback, EarlyStopping, History, fit, schedule_by_name


def blobs(n: int, seed: int) -> Split:
    """Four classes around four corners of a cube in eight dimensions."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(4, (n,), generator=g)
    corners = torch.nn.functional.one_hot(y, 8).float() * 3
    return Split(corners + torch.randn(n, 8, generator=g), y)


def toy_data() -> Data:
    """52 training and 40 test samples: with batches of 8, the last one is not full."""
    return Data("blobs", blobs(52, 0), blobs(40, 1), ("a", "b", "c", "d"))


class Everything:
    """A training whose every part has state: dropout, batch norm, SET, Adam or momentum, a schedule."""

    def __init__(self, optimizer: str = "adam", epochs: int = 3) -> None:
        g = torch.Generator().manual_seed(5)
        model = models.build("mlp:8-12-10-4", dropout=0.3, generator=g)
        model.add_module("norm", nn.BatchNorm1d(4))
        self.model = sparsify(model, density=0.4, generator=g)
        parameters = self.model.parameters()
        self.optimizer: torch.optim.Optimizer = {
            "adam": lambda: torch.optim.Adam(parameters, lr=0.01, amsgrad=True),
            "sgd": lambda: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True),
            "adagrad": lambda: torch.optim.Adagrad(parameters, lr=0.05),
            "rprop": lambda: torch.optim.Rprop(parameters, lr=0.01),
        }[optimizer]()
        self.scheduler = schedule_by_name("cosine", self.optimizer, epochs)
        self.evolver = Evolve(rate="exd", every=3, total=epochs * 7, generator=g)
        self.evolver.attach(self.model, self.optimizer)
        self.epochs = epochs

    def fit(self, *callbacks: Callback, resume: Path | None = None, **changes: object) -> History:
        """Train, with early stopping that never stops but keeps the best network."""
        options: dict[str, object] = {
            "epochs": self.epochs, "optimizer": self.optimizer, "scheduler": self.scheduler,
            "evolver": self.evolver, "batch_size": 8, "seed": 3, **changes,
        }  # fmt: skip
        patience = EarlyStopping(100, restore_best=True)
        return fit(self.model, toy_data(), callbacks=[patience, *callbacks], resume=resume, **options)


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the model's state."""
    return {k: v.clone() for k, v in model.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(a[k].shape == b[k].shape and torch.equal(a[k], b[k]) for k in a)


def without_times(history: History) -> list[dict[str, float]]:
    """The history's figures that do not depend on the clock."""
    return [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in history.epochs]
