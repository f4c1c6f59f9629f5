"""Small trained networks and a task for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from regraft import models, sparsify

Batches = list[tuple[Tensor, Tensor]]


@pytest.fixture
def batches() -> Batches:
    """Four batches of 25 points in 6 dimensions; the class is the quadrant of two of their sums."""
    x = torch.randn(100, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, :3].sum(1) > 0).long() + 2 * (x[:, 3:].sum(1) > 0).long()
    return list(zip(x.split(25), y.split(25), strict=True))


@pytest.fixture
def net(batches: Batches) -> Callable[..., nn.Module]:
    """A 6-10-8-4 network of a seed, trained a little; sparse if a density is given."""

    def make(seed: int, density: float | None = None) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        model = models.build("mlp:6-10-8-4", generator=generator)
        if density is not None:
            sparsify(model, density=density, init="rescale", generator=generator)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(15):
            for x, y in batches:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
        return model

    return make
