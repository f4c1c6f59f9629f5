"""Learned thresholds: gradients against autograd of the paper's formulas, and the network that remains."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from regraft import SparseWeight
from regraft.errors import InputError
from regraft.evolve import LearnedThresholds
from regraft.evolve.thresholds import Threshold, long_tailed


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))


class StepByHand(torch.autograd.Function):
    """S(q) with the derivative of thesis 4, chapter 2; nothing else."""

    @staticmethod
    def forward(ctx: Any, q: Tensor) -> Tensor:
        ctx.save_for_backward(q)
        return (q >= 0).to(q)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (q,) = ctx.saved_tensors
        h = [2 - 4 * abs(v) if abs(v) <= 0.4 else 0.4 if abs(v) <= 1 else 0.0 for v in q.reshape(-1).tolist()]
        return grads[0] * torch.tensor(h, dtype=q.dtype).view_as(q)


@given(shape=st.sampled_from([(3, 4), (4, 2, 3, 3)]), alpha=st.floats(0, 2), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_gradients_against_autograd(shape: tuple[int, ...], alpha: float, seed: int) -> None:
    g = seeded(seed)
    w = torch.randn(shape, generator=g, dtype=torch.float64, requires_grad=True)
    t = torch.rand(shape[0], generator=g, dtype=torch.float64, requires_grad=True)
    weigh = torch.randn(shape, generator=g, dtype=torch.float64)
    by_row = t.view(-1, *(1,) * (len(shape) - 1))
    loss = (w * StepByHand.apply(w.abs() - by_row) * weigh).sin().sum() + alpha * torch.exp(-t).sum()
    wanted = torch.autograd.grad(loss, (w, t))
    module = Threshold(w.detach(), alpha).double()
    with torch.no_grad():
        module.threshold.copy_(t)
    got = torch.autograd.grad((module(w) * weigh).sin().sum(), (w, module.threshold))
    torch.testing.assert_close(got[0], wanted[0])
    torch.testing.assert_close(got[1], wanted[1])


def test_estimator_literal() -> None:
    q = torch.tensor([0.0, 0.1, -0.4, 0.41, -1.0, 1.01])
    assert long_tailed(q).tolist() == pytest.approx([2.0, 1.6, 0.4, 0.4, 0.4, 0.0])


def test_masks_by_row() -> None:
    module = Threshold(torch.zeros(2, 3), 0.0)
    w = torch.tensor([[0.1, -0.5, 0.9], [0.1, -0.5, 0.9]])
    assert module(w).equal(w)  # thresholds begin at 0
    with torch.no_grad():
        module.threshold.copy_(torch.tensor([0.5, 0.6]))
    assert module(w).tolist() == [[0.0, -0.5, w[0, 2]], [0.0, 0.0, w[1, 2]]]


def run(alpha: float, steps: int = 60) -> tuple[nn.Sequential, LearnedThresholds, list[float]]:
    thresholds = LearnedThresholds(alpha)
    model = thresholds.prepare(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = torch.randn(40, 12, generator=seeded()), torch.randint(4, (40,), generator=seeded())
    densities = []
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        done = thresholds.step()
        assert done is not None
        densities.append(done.figures()["density"])
    return model, thresholds, densities


def test_the_penalty_makes_it_sparser() -> None:
    last = [run(alpha)[2][-1] for alpha in (0.0, 0.003, 0.02)]
    assert last[0] > last[1] > last[2] > 0


def test_the_sparse_network_computes_the_same() -> None:
    model, thresholds, densities = run(0.01)
    x = torch.randn(5, 12, generator=seeded(1))
    with torch.no_grad():
        before = model(x)
        after = thresholds.finish(model)(x)
    torch.testing.assert_close(after, before)
    weights = [m for m in model.modules() if isinstance(m, SparseWeight)]
    assert len(weights) == 2
    assert sum(w.nnz for w in weights) / sum(w.size for w in weights) == pytest.approx(densities[-1])
    assert not any("parametrizations" in name for name, _ in model.named_parameters())


def test_the_guard_sets_thresholds_back() -> None:
    model = network()
    thresholds = LearnedThresholds(guard=0.5)
    thresholds.prepare(model)
    with torch.no_grad():
        model[0].parametrizations.weight[0].threshold.fill_(9.0)
    done = thresholds.step()
    assert done is not None
    assert (done.reset, done.density) == (("0",), 1.0)
    assert model[0].parametrizations.weight[0].threshold.tolist() == [0.0] * 16


def test_convolutions_and_patterns() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    thresholds = LearnedThresholds(every=2, exclude=["3"])
    thresholds.prepare(model)
    assert thresholds.step() is None
    assert thresholds.step() is not None
    sparse = thresholds.finish(model)
    assert [type(m).__name__ for m in sparse] == ["SparseConv2d", "ReLU", "Flatten", "Linear"]


def test_state() -> None:
    a, b = LearnedThresholds(every=3), LearnedThresholds(every=3)
    a.prepare(network())
    a.step()
    b.load_state_dict(a.state_dict())
    assert b.steps == 1
    assert not a.watching
    with a.watch():
        pass
    assert repr(a) == "LearnedThresholds(alpha=0.0005, guard=0.01, every=3)"


@pytest.mark.parametrize(
    ("options", "error"),
    [({"alpha": -1.0}, "alpha is -1.0"), ({"guard": 1.0}, "guard is 1.0"), ({"every": 0}, "every is 0")],
)
def test_options(options: dict[str, Any], error: str) -> None:
    with pytest.raises(InputError, match=error):
        LearnedThresholds(**options)


def test_errors() -> None:
    with pytest.raises(InputError, match=r"call \.prepare\(model\) first"):
        LearnedThresholds().step()
    with pytest.raises(InputError, match="has no thresholds"):
        LearnedThresholds().finish(network())
    model = LearnedThresholds().prepare(network())
    with torch.no_grad():
        model[2].parametrizations.weight[0].threshold.fill_(9.0)
    with pytest.raises(InputError, match="all weights of '2' are masked"):
        LearnedThresholds().finish(model)
