"""Networks with batch normalisation and residual streams, and figures of their layers by hooks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from regraft import sparsify


def mlp(seed: int, sizes: Sequence[int] = (6, 9, 8, 4), density: float | None = 0.4) -> nn.Module:
    """Linear layers with ReLU between them, with random biases."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        nn.init.normal_(layers[-2].bias, 0.5, 1.0)  # type: ignore[arg-type]
    model = nn.Sequential(*layers[:-1])
    return _sparse(model, density, seed)


class Residual(nn.Module):
    """Convolutions of which some feed a batch normalisation; modules stand in another order than they run."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.norm1, self.conv1 = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm0, self.stem = nn.BatchNorm2d(4), nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.plain = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm0(self.stem(x)))
        y = torch.relu(self.norm1(self.conv1(x)))
        return self.head(torch.relu(x + self.plain(y)).mean((2, 3)))


def residual(seed: int, density: float | None = 0.5) -> nn.Module:
    """With scales, shifts and statistics that differ from unit to unit."""
    torch.manual_seed(seed)
    model = Residual()
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
                m.running_mean.normal_()  # type: ignore[union-attr]
                m.weight.uniform_(0.5, 2.0)
                m.bias.normal_()
    return _sparse(model, density, seed)


def _sparse(model: nn.Module, density: float | None, seed: int) -> nn.Module:
    if density is not None:
        sparsify(model, density=density, generator=torch.Generator().manual_seed(seed))
    return model


def at(model: nn.Module, name: str, batches: Sequence[Tensor], *, arriving: bool = False) -> Tensor:
    """What a layer puts out, or what arrives at it, in evaluation: [units, numbers], float64."""
    seen: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(
        lambda _, inputs, output: seen.append((inputs[0] if arriving else output).detach().double())
    )
    modes = [(m, m.training) for m in model.modules()]
    with torch.no_grad():
        model.eval()
        for x in batches:
            model(x)
    for module, training in modes:
        module.training = training
    handle.remove()
    return torch.cat([x.transpose(0, 1).flatten(1) for x in seen], 1)
