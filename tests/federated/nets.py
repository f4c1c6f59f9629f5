"""A small network, and samples by which it learns."""

from __future__ import annotations

import torch
from torch import nn

from regraft import sparsify
from regraft.data import Split
from regraft.models import build


def network(seed: int = 0, density: float | None = 0.3) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    model = build("mlp:6-12-8-3", generator=generator)
    if density is not None:
        model = sparsify(model, density=density, generator=generator)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(generator=generator)
    return model


def samples(n: int = 30, seed: int = 0) -> Split:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator)
    return Split(x, x[:, :3].argmax(1))
