"""Signals against dense float64 references written a second time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from regraft import SparseWeight, signals, sparsify
from regraft.probe import Probe

cross_entropy = nn.functional.cross_entropy


def mlp(density: float = 0.5) -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    return sparsify(model, density=density, allocate="uniform", generator=torch.Generator().manual_seed(0))


def batches(sizes: tuple[int, ...] = (8,)) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(1)
    return [(torch.randn(n, 6, generator=g).double(), torch.randint(3, (n,), generator=g)) for n in sizes]


def reference(model: nn.Module, loss, flat: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    """The loss as a function of all dense weights of the three layers in one vector."""
    shapes = [model[i].weight.shape for i in (0, 2, 4)]
    parts = flat.split([s.numel() for s in shapes])
    w = [p.view(s) for p, s in zip(parts, shapes, strict=True)]
    h = torch.tanh(loss.x @ w[0].t() + model[0].bias.detach())
    h = torch.relu(h @ w[1].t() + model[2].bias.detach())
    return loss(h @ w[2].t() + model[4].bias.detach())


class Loss:
    def __init__(self, parts: list[tuple[Tensor, Tensor]], temperature: float = 1.0) -> None:
        self.x, self.y = torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
        self.temperature = temperature

    def __call__(self, output: Tensor) -> Tensor:
        return cross_entropy(output / self.temperature, self.y)


def dense_of(model: nn.Module) -> Tensor:
    return torch.cat([model[i].weight.dense().detach().flatten() for i in (0, 2, 4)])


def positions_of(model: nn.Module) -> Tensor:
    weights, at, found = [model[i].weight for i in (0, 2, 4)], 0, []
    for w in weights:
        found.append(w.index + at)
        at += w.size
    return torch.cat(found)


@pytest.mark.parametrize("sizes", [(8,), (5, 3), (1, 1, 6)])
def test_gradient_is_that_of_the_mean_loss_however_it_is_cut_into_batches(sizes: tuple[int, ...]) -> None:
    model, parts = mlp(), batches(sizes)
    flat = dense_of(model).requires_grad_()
    (wanted,) = torch.autograd.grad(reference(model, Loss(parts), flat), flat)
    found = torch.cat(list(signals.gradient(model, Probe(cross_entropy, parts)).values()))
    torch.testing.assert_close(found, wanted[positions_of(model)], atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 20.0])
@pytest.mark.parametrize("sizes", [(8,), (5, 3)])
def test_hessian_gradient_against_the_explicit_hessian(temperature: float, sizes: tuple[int, ...]) -> None:
    model, parts = mlp(), batches(sizes)
    loss, at = Loss(parts, temperature), positions_of(model)
    flat = dense_of(model)
    g = torch.func.grad(lambda f: reference(model, loss, f))(flat)
    h = torch.autograd.functional.hessian(lambda f: reference(model, loss, f), flat)
    wanted = h[at][:, at] @ g[at]
    signal = signals.HessianGradient(temperature)
    found = torch.cat(list(signal(model, Probe(cross_entropy, parts)).values()))
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-8)


def functional_flow(model: nn.Module, x: Tensor, power: int = 1) -> dict[str, Tensor]:
    """Paths counted by matrix products, for an MLP of three layers."""
    w = [model[i].weight.dense().detach().double().abs() ** power for i in (0, 2, 4)]
    left = [x, w[0] @ x, w[1] @ w[0] @ x]
    right = [w[2].sum(0) @ w[1], w[2].sum(0), torch.ones(3).double()]
    return {
        f"{2 * i}.weight": torch.outer(right[i], left[i]).flatten()[model[2 * i].weight.index]
        for i in range(3)
    }


def test_flow_counts_paths() -> None:
    model = mlp()
    found = signals.flow(model, Probe(input_shape=(6,)))
    for name, wanted in functional_flow(model, torch.ones(6).double()).items():
        torch.testing.assert_close(found[name], wanted)


def test_functional_call_reference_has_the_same_flow() -> None:
    model = mlp()
    leaves = {
        f"{n}.values": m.values.detach().abs().requires_grad_()
        for n, m in model.named_modules()
        if isinstance(m, SparseWeight)
    }
    zeros = {f"{i}.bias": torch.zeros_like(model[i].bias) for i in (0, 2, 4)}
    linear = nn.Sequential(model[0], nn.Identity(), model[2], nn.Identity(), model[4])
    total = functional_call(linear, {**leaves, **zeros}, (torch.ones(1, 6).double(),)).sum()
    wanted = torch.autograd.grad(total, list(leaves.values()))
    found = signals.flow(model, Probe(input_shape=(6,)))
    for a, b in zip(found.values(), wanted, strict=True):
        torch.testing.assert_close(a, b)
