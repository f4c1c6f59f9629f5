"""The fused step against the ordinary one, computed densely."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import nn

from regraft import kernels, sparsify
from regraft.errors import InputError
from regraft.kernels import native
from regraft.kernels.fused import FusedMLP, why_not

compiled = pytest.mark.skipif(not native.available(), reason="no compiled kernels here")


def make(
    *sizes: int,
    act: type[nn.Module] = nn.ReLU,
    drop: float = 0.0,
    dense_last: bool = True,
    density: float = 0.3,
) -> Any:
    modules: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        modules += [nn.Linear(a, b), act(), *([nn.Dropout(drop)] if drop else [])]
    del modules[-2 if drop else -1 :]
    last = str(len(modules) - 1)
    return sparsify(nn.Sequential(*modules), density=density, exclude=[last] if dense_last else [])


def sgd(model: nn.Module, **options: Any) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), **{"lr": 0.1, "momentum": 0.9, **options})


def ordinary_step(model: Any, loss: Any, optimizer: Any, x: torch.Tensor, target: torch.Tensor) -> float:
    optimizer.zero_grad()
    value = loss(model(x), target)
    value.backward()
    optimizer.step()
    return float(value.detach())


@compiled
@pytest.mark.parametrize("act", [nn.ReLU, nn.Sigmoid, nn.Tanh, nn.Identity])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("batch", "threads", "options"),
    [
        (100, 1, {}),
        (1, 2, {"weight_decay": 0.01}),
        (37, 2, {"nesterov": True, "weight_decay": 0.01}),
        (300, 3, {"momentum": 0.0}),
    ],
)
@pytest.mark.parametrize("regression", [False, True])
def test_same_training_as_dense_autograd(
    act: type[nn.Module], dtype: torch.dtype, batch: int, threads: int, options: Any, regression: bool
) -> None:
    torch.manual_seed(0)
    ours = make(20, 60, 40, 5, act=act, dense_last=not regression).to(dtype)
    theirs = copy.deepcopy(ours)
    loss = nn.MSELoss() if regression else nn.CrossEntropyLoss()
    optimizer, reference = sgd(ours, **options), sgd(theirs, **options)
    fused = FusedMLP(ours, loss, optimizer)
    kernels.set_threads(threads)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    for step in range(5):
        x = torch.randn(batch, 20, dtype=dtype)
        target = torch.randn(batch, 5, dtype=dtype) if regression else torch.randint(0, 5, (batch,))
        # changing between both ways mid-training changes nothing
        ordinary = ordinary_step(ours, loss, optimizer, x, target) if step == 2 else fused.step(x, target)
        with kernels.use("materialised"):
            want = ordinary_step(theirs, loss, reference, x, target)
        assert ordinary == pytest.approx(want, rel=tolerance)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)
    kernels.set_threads(1)


@compiled
@pytest.mark.parametrize(
    ("sizes", "density"),
    [((40, 8200, 30, 5), 0.02), ((1200, 30, 5), 0.9)],  # wider than the second cache; dense rows in panels
)
def test_wide_and_dense_layers_train_as_densely(sizes: tuple[int, ...], density: float) -> None:
    torch.manual_seed(0)
    ours = make(*sizes, density=density).double()
    theirs = copy.deepcopy(ours)
    loss, optimizer, reference = nn.CrossEntropyLoss(), sgd(ours), sgd(theirs)
    fused = FusedMLP(ours, loss, optimizer)
    for batch in (128, 61):
        x, target = torch.randn(batch, sizes[0], dtype=torch.float64), torch.randint(0, 5, (batch,))
        with kernels.use("materialised"):
            want = ordinary_step(theirs, loss, reference, x, target)
        assert fused.step(x, target) == pytest.approx(want, rel=1e-10)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-9)


@compiled
@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("batch", [1, 37, 300])  # one vector, one tile, several
def test_a_step_shows_inputs_and_output_gradients(act: type[nn.Module], batch: int) -> None:
    torch.manual_seed(0)
    shown_to = make(12, 3000, 20, 5, act=act, dense_last=batch != 37, density=0.1).double()
    alone, autograd = copy.deepcopy(shown_to), copy.deepcopy(shown_to)
    x, target = torch.randn(batch, 12, dtype=torch.float64), torch.randint(0, 5, (batch,))
    seen: dict[nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}
    for model, keep in ((shown_to, seen), (alone, None)):
        fused = FusedMLP(model, nn.CrossEntropyLoss(), sgd(model))
        for _ in range(2):
            fused.step(x, target, seen=keep)
    for p, q in zip(shown_to.parameters(), alone.parameters(), strict=True):
        assert torch.equal(p, q)
    captured = capture(autograd, x, target)
    assert [*seen] == [m for m in shown_to if hasattr(m, "weight")]
    for (inputs, gradient), (want_inputs, want_gradient) in zip(seen.values(), captured, strict=True):
        torch.testing.assert_close(inputs, want_inputs, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(gradient, want_gradient, rtol=1e-9, atol=1e-9)


def capture(model: Any, x: torch.Tensor, target: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs and output gradients of the linear layers in the second of two ordinary steps."""
    optimizer, loss = sgd(model), nn.CrossEntropyLoss()
    with kernels.use("materialised"):
        ordinary_step(model, loss, optimizer, x, target)
        inputs, outputs = [], []
        for module in model:
            inputs.append(x.detach())
            x = module(x)
            x.retain_grad()
            outputs.append(x)
        loss(x, target).backward()
    linear = [i for i, module in enumerate(model) if hasattr(module, "weight")]
    return [(inputs[i], outputs[i].grad) for i in linear]


@compiled
def test_threads_do_not_change_a_bit() -> None:
    results = []
    for threads in (1, 2, 3):
        torch.manual_seed(0)
        model = make(50, 3000, 60, 7)  # two panels of rows
        fused = FusedMLP(model, nn.CrossEntropyLoss(), sgd(model))
        kernels.set_threads(threads)
        losses = [fused.step(torch.randn(150, 50), torch.randint(0, 7, (150,))) for _ in range(3)]
        results.append((losses, [p.detach().clone() for p in model.parameters()]))
    kernels.set_threads(1)
    for losses, parameters in results[1:]:
        assert losses == results[0][0]
        assert all(torch.equal(a, b) for a, b in zip(parameters, results[0][1], strict=True))


@compiled
def test_learns_after_a_rewiring() -> None:
    torch.manual_seed(0)
    model = make(6, 8, 3)
    optimizer = sgd(model)
    fused = FusedMLP(model, nn.CrossEntropyLoss(), optimizer)
    x, target = torch.randn(9, 6), torch.randint(0, 3, (9,))
    fused.step(x, target)
    w = model[0].weight
    moved = w.rewire(w.index[:-1], torch.empty(0))
    with pytest.raises(InputError, match="momentum"):
        fused.step(x, target)
    state = optimizer.state[w.values]
    state["momentum_buffer"] = state["momentum_buffer"][moved.kept_old]
    before = w.values.detach().clone()
    fused.step(x, target)
    assert not torch.equal(w.values, before)


@compiled
@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh])
def test_dropout_keeps_its_share_and_its_gradient_is_right(act: type[nn.Module]) -> None:
    """At a rate of 0 the loss under the same masks is a plain function: compare with finite differences."""
    torch.manual_seed(0)
    model = make(6, 400, 3, act=act, drop=0.4).double()
    x, target = torch.randn(8, 6, dtype=torch.float64), torch.randint(0, 3, (8,))
    still = FusedMLP(model, nn.CrossEntropyLoss(), sgd(model, lr=0.0, momentum=0.0))

    def loss() -> float:
        return still.step(x, target, torch.Generator().manual_seed(5))

    values = model[0].weight.values
    before, base = values.detach().clone(), loss()
    moving = FusedMLP(model, nn.CrossEntropyLoss(), sgd(model, lr=1e-6, momentum=0.0))
    moving.step(x, target, torch.Generator().manual_seed(5))
    gradient = (before - values.detach()) / 1e-6
    with torch.no_grad():
        for p in model.parameters():
            p.requires_grad_(True)
        values.copy_(before)
    at = int(gradient.abs().argmax())
    slopes = []
    for h in (1e-5, -1e-5):
        with torch.no_grad():
            values[at] = before[at] + h
        slopes.append(loss())
    assert (slopes[0] - slopes[1]) / 2e-5 == pytest.approx(float(gradient[at]), rel=1e-3)
    model.eval()
    assert still.step(x, target) == pytest.approx(
        float(nn.CrossEntropyLoss()(model(x), target).detach()), rel=1e-6
    )
    assert still.step(x, target) != base


@compiled
def test_bad_batches_change_nothing() -> None:
    model = make(6, 8, 3)
    fused = FusedMLP(model, nn.CrossEntropyLoss(), sgd(model))
    before = [p.detach().clone() for p in model.parameters()]
    x, target = torch.randn(4, 6), torch.tensor([0, 1, 2, 0])
    for bad_x, bad_target in [
        (x[:, :5], target),
        (x.double(), target),
        (x[:0], target[:0]),
        (x, target[:3]),
        (x, target.int()),
        (x, target + 1),
        (x, target - 1),
    ]:
        with pytest.raises(InputError):
            fused.step(bad_x, bad_target)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@compiled
def test_why_not() -> None:
    model = make(6, 8, 3)
    loss, optimizer = nn.CrossEntropyLoss(), sgd(model)
    assert why_not(model, loss, optimizer) is None
    assert "AdamW" in str(why_not(model, loss, torch.optim.AdamW(model.parameters())))
    assert "label smoothing" in str(why_not(model, nn.CrossEntropyLoss(label_smoothing=0.1), optimizer))
    assert "other parameters" in str(why_not(model, loss, sgd(model[0])))
    assert "dampening" in str(why_not(model, loss, sgd(model, dampening=0.5)))
    odd = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    assert "LayerNorm" in str(why_not(odd, loss, sgd(odd)))
    half = make(6, 8, 3).to(torch.bfloat16)
    assert "bfloat16" in str(why_not(half, loss, sgd(half)))
    model[0].register_forward_hook(lambda *args: None)
    assert "hooks" in str(why_not(model, loss, optimizer))
    with pytest.raises(InputError, match="hooks"):
        FusedMLP(model, loss, optimizer)


@compiled
def test_nan_spreads() -> None:
    model = make(6, 8, 3)
    fused = FusedMLP(model, nn.CrossEntropyLoss(), sgd(model))
    x = torch.randn(5, 6)
    x[2] = float("nan")
    loss = fused.step(x, torch.tensor([0, 1, 2, 0, 1]))
    assert loss != loss
