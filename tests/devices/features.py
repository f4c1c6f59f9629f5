"""Networks and samples for the device tests, and the comparison of a device with the CPU."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from regraft import kernels, sparsify
from regraft.probe import Probe

CPU = torch.device("cpu")
Batches = list[tuple[Tensor, Tensor]]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(
    device: torch.device, seed: int = 0, density: float | None = 0.4, sizes: tuple[int, ...] = (8, 12, 10, 4)
) -> nn.Sequential:
    """Linear layers with ReLU between them, drawn on the CPU, then moved."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    if density is not None:
        sparsify(model, density=density, generator=seeded(seed))
    return model.to(device)


class Convolutional(nn.Module):
    """Convolutions, a batch normalisation, a residual stream and a linear head, for images [n, 1, 6, 6]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv, self.head = nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        y: Tensor = self.head(torch.relu(x + self.conv(x)).mean((2, 3)))
        return y


def convolutional(device: torch.device, seed: int = 0, density: float | None = 0.5) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Convolutional()
    if density is not None:
        sparsify(model, density=density, generator=seeded(seed))
    return model.to(device)


def batches(device: torch.device, n: int = 3, width: int = 8) -> Batches:
    """Batches of 20 samples of four classes that can be told apart."""
    g = seeded(9)
    x = torch.randn(20 * n, width, generator=g)
    y = (x[:, : width // 2].sum(1) > 0).long() + 2 * (x[:, width // 2 :].sum(1) > 0).long()
    return [(a.to(device), b.to(device)) for a, b in zip(x.split(20), y.split(20), strict=True)]


def images(device: torch.device, n: int = 2) -> Batches:
    return [(x.view(-1, 1, 6, 6), y) for x, y in batches(device, n, 36)]


def probe(device: torch.device, data: Batches | None = None) -> Probe:
    """What any score or rule may ask for; its generator is a CPU one, as for any device."""
    return Probe(nn.functional.cross_entropy, batches(device) if data is None else data, seeded(3))


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Batches,
    epochs: int = 1,
    after: Callable[[], Any] = lambda: None,
) -> None:
    """A loop such as any user's."""
    for _ in range(epochs):
        for x, y in data:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            after()


def trained(device: torch.device, seed: int = 0, density: float | None = 0.4) -> nn.Sequential:
    model = mlp(device, seed, density)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), batches(device), 3)
    return model


def on(result: Any, device: torch.device) -> bool:
    """Whether every tensor of a result lies on the device."""
    return all(t.device.type == device.type for t in tensors(result))


def tensors(result: Any) -> list[Tensor]:
    """All tensors of a nested result; those of modules are their states."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, nn.Module):
        return list(result.state_dict().values())
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return tensors([getattr(result, f.name) for f in dataclasses.fields(result)])
    if isinstance(result, Mapping):
        return tensors(list(result.values()))
    if isinstance(result, list | tuple):
        return [t for part in result for t in tensors(part)]
    return []


def same(feature: Callable[[torch.device], Any], device: torch.device) -> Any:
    """Run a feature on the CPU and on the device, and compare all that it returns: positions and counts
    exactly, other numbers but for rounding. Returns the device's result.

    The CPU computes through dense weights, too: its compiled kernels sum in another order, and a choice
    between two nearly equal numbers could fall otherwise.
    """
    with kernels.use("materialised"):
        wanted = feature(CPU)
    got = feature(device)
    left, right = plain(wanted), plain(got)
    torch.testing.assert_close(right, left, rtol=2e-4, atol=2e-5, equal_nan=True)
    return got


def plain(result: Any) -> Any:
    """A result with its tensors on the CPU, and modules as their states."""
    if isinstance(result, Tensor):
        return result.detach().cpu()
    if isinstance(result, nn.Module):
        return plain(dict(result.state_dict()))
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return {f.name: plain(getattr(result, f.name)) for f in dataclasses.fields(result)}
    if isinstance(result, Mapping):
        return {k: plain(v) for k, v in result.items()}
    if isinstance(result, list | tuple):
        return [plain(part) for part in result]
    return result if isinstance(result, int | float) else 0 if result is None else hash(str(result))
