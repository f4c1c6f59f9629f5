"""Networks that the export tests share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import regraft


class Residual(nn.Module):
    """A small residual network: convolutions, batch normalisation, an addition, a global mean."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.body = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.norm2 = nn.BatchNorm2d(8)
        self.norm3 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.stem(x)))
        x = self.norm3(torch.nn.functional.relu(x + self.norm2(self.body(x))))
        x = torch.nn.functional.adaptive_avg_pool2d(x, 1)
        return self.head(x.view(x.size(0), -1))


def _sparse(model: nn.Module, density: float = 0.3, seed: int = 0) -> nn.Module:
    """``model`` with sparse layers, running statistics that are not the identity, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    regraft.sparsify(model, density=density, generator=generator)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.uniform_(-1, 2, generator=generator)
            module.bias.data.normal_(generator=generator)
    return model.eval()


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 50), nn.ReLU(), nn.Dropout(0.3), nn.Linear(50, 40), nn.Tanh(),
        nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 5),
    )  # fmt: skip


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * 25, 20), nn.ReLU(), nn.Linear(20, 10), nn.Softmax(1),
    )  # fmt: skip


def odd_conv() -> nn.Module:
    """Strides, dilations, groups, uneven padding, average pooling that counts no padding."""
    return nn.Sequential(
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(2, 1), groups=2),
        nn.BatchNorm2d(6), nn.LeakyReLU(0.2),
        nn.Conv2d(6, 5, 4, padding="same"), nn.ELU(0.7),
        nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
        nn.ReLU(), nn.BatchNorm2d(5), nn.MaxPool2d(2, 1, padding=1, dilation=2), nn.Flatten(),
    )  # fmt: skip


def conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 4, 3, padding=1, stride=2), nn.SiLU(), nn.AvgPool1d(2, padding=1), nn.Sigmoid(),
        nn.Conv1d(4, 3, 2, padding="same"), nn.ReLU6(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(9, 2),
    )  # fmt: skip


def tokens() -> nn.Module:
    """Linear layers over the last of two dimensions."""
    return nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 7, bias=False), nn.Softmax(-1))


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (64,)),
    "lenet": (lenet, (1, 28, 28)),
    "residual": (Residual, (3, 8, 8)),
    "odd conv": (odd_conv, (4, 11, 9)),
    "conv1d": (conv1d, (2, 21)),
    "tokens": (tokens, (3, 6)),
}


def _case(name: str) -> tuple[nn.Module, Tensor]:
    make, shape = CASES[name]
    torch.manual_seed(1)
    return _sparse(make()), torch.randn(5, *shape)


@pytest.fixture
def sparse() -> Callable[..., nn.Module]:
    return _sparse


@pytest.fixture
def residual() -> nn.Module:
    return _sparse(Residual())


@pytest.fixture
def case() -> Callable[[str], tuple[nn.Module, Tensor]]:
    """Makes, by name, a sparse network in evaluation mode and five samples for it."""
    return _case


@pytest.fixture(params=CASES)
def net(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    """Each of the networks in turn, with five samples."""
    return _case(request.param)
