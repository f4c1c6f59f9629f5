"""A small problem, networks for it, and a training that is the same each time."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from regraft.probe import Probe


def net(*sizes: int, seed: int = 0) -> nn.Sequential:
    """An MLP whose weights all have one distribution, so that no layer dies by its scale."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    for p in model.parameters():
        nn.init.normal_(p, std=0.5, generator=generator)
    return model


def samples(n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Four classes around four corners of a cube in eight dimensions."""
    g = torch.Generator().manual_seed(7)
    y = torch.randint(4, (n,), generator=g)
    return torch.nn.functional.one_hot(y, 8) * 3.0 + torch.randn(n, 8, generator=g), y


def probe(seed: int = 0) -> Probe:
    """What any score needs."""
    return Probe(
        loss=nn.functional.cross_entropy, batches=[samples()], generator=torch.Generator().manual_seed(seed)
    )


class Normed(nn.Module):
    """A network with batch norm and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(48, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.norm(self.conv(x[:, None]))).flatten(1))


def make_normed() -> nn.Module:
    """A new ``Normed``, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Normed()


def train(model: nn.Module, start: int, stop: int | None) -> float:
    """Four epochs of momentum SGD in all; returns the loss. The learning rate falls with the epoch."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    loss = torch.zeros(())
    for epoch in range(start, 4 if stop is None else stop):
        optimizer.param_groups[0]["lr"] = 0.05 / (1 + epoch)
        x, y = samples()
        for part in torch.randperm(40, generator=torch.Generator().manual_seed(epoch)).split(10):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[part]), y[part])
            loss.backward()
            optimizer.step()
    return float(loss.detach())


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the model's state."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(a[k].shape == b[k].shape and torch.equal(a[k], b[k]) for k in a)
