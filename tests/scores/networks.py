"""Models and probes that the tests of scores share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from regraft import models, sparsify
from regraft.probe import Probe


class Residual(nn.Module):
    """A small convolutional network with batch normalisation and a residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv1, self.norm1 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4)
        self.dropout, self.head = nn.Dropout(0.5), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu(self.norm0(self.stem(x)))
        x = torch.relu(x + self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))))
        return self.head(self.dropout(nn.functional.avg_pool2d(x, 2).mean((2, 3))))


def _mlp() -> tuple[nn.Module, tuple[int, ...]]:
    return models.build("mlp:12-10-8-3", generator=torch.Generator().manual_seed(0)), (12,)


def _lenet() -> tuple[nn.Module, tuple[int, ...]]:
    return models.build("lenet-5", classes=3, generator=torch.Generator().manual_seed(0)), (1, 28, 28)


def _residual() -> tuple[nn.Module, tuple[int, ...]]:
    torch.manual_seed(0)
    model = Residual()
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_var.uniform_(0.5, 2.0)
                m.running_mean.normal_()
                m.weight.normal_()
                m.bias.normal_()
    return model, (1, 8, 8)


MAKE: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "mlp": _mlp,
    "lenet-5": _lenet,
    "residual": _residual,
}


def made(name: str, density: float = 0.5, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Probe]:
    """A sparse model and a probe that fits it; 7 samples in two batches, labels 0 to 2."""
    model, shape = MAKE[name]()
    sparsify(model.to(dtype), density=density, generator=torch.Generator().manual_seed(1))
    g = torch.Generator().manual_seed(2)
    x, y = torch.randn(7, *shape, generator=g).to(dtype), torch.arange(7) % 3
    return model, Probe(nn.functional.cross_entropy, [(x[:4], y[:4]), (x[4:], y[4:])], g)
