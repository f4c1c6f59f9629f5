"""Small networks to merge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from regraft import save, sparsify

MakeNet = Callable[..., nn.Module]


def make_net(seed: int, density: float | None = 0.3, *, norm: bool = False, bias: bool = True) -> nn.Module:
    """7-6-4, sparse unless ``density`` is None, with random biases and, if asked for, a batch norm."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Linear(7, 6, bias=bias), nn.ReLU(), nn.Linear(6, 4, bias=bias)]
    if norm:
        layers.insert(1, nn.BatchNorm1d(6))
    model = nn.Sequential(*layers)
    if norm:
        model(torch.randn(9, 7))
    if density is not None:
        sparsify(model, density=density, generator=torch.Generator().manual_seed(seed))
    return model


@pytest.fixture
def net() -> MakeNet:
    return make_net


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[list[nn.Module]], list[Path]]:
    """Models -> their files."""

    def write(models: list[nn.Module]) -> list[Path]:
        paths = [tmp_path / f"net{i}.safetensors" for i in range(len(models))]
        for model, path in zip(models, paths, strict=True):
            save(model, path)
        return paths

    return write


def same_state(a: nn.Module, b: nn.Module) -> bool:
    """Whether two models hold the same tensors, bit for bit."""
    left, right = a.state_dict(), b.state_dict()
    return list(left) == list(right) and all(torch.equal(left[n], right[n]) for n in left)


@pytest.fixture
def equal() -> Callable[[nn.Module, nn.Module], bool]:
    return same_state
