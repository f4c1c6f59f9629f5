"""Which step is taken, and that all of them compute the same."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from regraft import kernels, models, sparsify
from regraft.kernels import backends, native
from regraft.losses import CrossEntropy, mse
from regraft.train.step import make_step

needs_kernels = pytest.mark.skipif(not native.available(), reason="the compiled kernels are not built")


def network(density: float | None, dropout: float = 0.0) -> nn.Module:
    g = torch.Generator().manual_seed(0)
    model = models.build("mlp:9-14-11-4", dropout=dropout, generator=g)
    return model if density is None else sparsify(model, density=density, generator=g)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)


def is_compiled(model: nn.Module, loss: Any, optimizer: torch.optim.Optimizer) -> bool:
    return str(make_step(model, loss, optimizer)) == "fused"


@needs_kernels
@pytest.mark.parametrize("loss", [CrossEntropy(), mse, nn.CrossEntropyLoss()])
def test_the_compiled_step_equals_the_ordinary_one(loss: Any) -> None:
    compiled, ordinary = network(0.3), network(0.3)
    optimizers = sgd(compiled), sgd(ordinary)
    assert is_compiled(compiled, loss, optimizers[0])
    fast = make_step(compiled, loss, optimizers[0])
    with kernels.use("materialised"):
        slow = make_step(ordinary, loss, optimizers[1])
        for _ in range(5):
            x, y = torch.randn(6, 9), torch.randint(4, (6,))
            assert fast(x, y).item() == pytest.approx(slow(x, y).item(), rel=1e-5)
    for a, b in zip(compiled.parameters(), ordinary.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@needs_kernels
@pytest.mark.parametrize(
    ("why", "make"),
    [
        ("no layer is sparse", lambda: (network(None), CrossEntropy(), sgd)),
        ("density 0.80 is above 0.5", lambda: (network(0.8), CrossEntropy(), sgd)),
        ("plain cross-entropy", lambda: (network(0.3), CrossEntropy(0.1), sgd)),
        ("plain cross-entropy", lambda: (network(0.3), nn.functional.cross_entropy, sgd)),
        ("Adam", lambda: (network(0.3), mse, lambda m: torch.optim.Adam(m.parameters()))),
        ("not all float32", lambda: (network(0.3).double(), CrossEntropy(), sgd)),
        ("SparseConv2d", lambda: (sparsify(models.build("lenet-5"), density=0.1), CrossEntropy(), sgd)),
    ],
)
def test_the_ordinary_step_is_taken_elsewhere(why: str, make: Callable[[], Any]) -> None:
    model, loss, optimizer = make()
    step = make_step(model, loss, optimizer(model))
    assert str(step) == f"ordinary: {step.why_ordinary}"
    assert why in str(step)


@needs_kernels
def test_another_backend_turns_it_off_and_is_named() -> None:
    model = network(0.3)
    with kernels.use("auto", backend="csr"):
        assert "through csr" in str(make_step(model, CrossEntropy(), sgd(model)))


def test_missing_kernels_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(0.3)
    for backend in backends.BACKENDS.values():
        monkeypatch.setattr(backend, "available", lambda: False)
    monkeypatch.setattr(native, "available", lambda: False)
    assert "compiled kernels are not installed" in str(make_step(model, CrossEntropy(), sgd(model)))


@needs_kernels
def test_materialised_turns_it_off() -> None:
    model = network(0.3)
    with kernels.use("materialised"):
        assert not is_compiled(model, CrossEntropy(), sgd(model))


def test_lbfgs_gets_a_closure() -> None:
    model = nn.Linear(3, 2)
    step = make_step(model, CrossEntropy(), torch.optim.LBFGS(model.parameters()))
    x, y = torch.randn(8, 3), torch.randint(2, (8,))
    assert step(x, y).item() > step(x, y).item()
