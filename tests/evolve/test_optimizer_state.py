"""Every optimizer of torch: survivors go on as if nothing had happened, new connections start fresh.

The table is complete: an optimizer of torch.optim that is not in it fails a test.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regraft import SparseWeight
from regraft.evolve import remap_state
from regraft.kernels.rewiring import swap
from regraft.weight import Rewiring

SIZE, NNZ = 12, 6
KEPT = torch.tensor([0, 2, 3, 5])  # entries that stay
GROWN = torch.tensor([1, 11])  # positions that come


@dataclass(frozen=True)
class Case:
    """How one optimizer keeps state.

    keys: its state of the parameter's shape, and what a fresh entry starts with.
    apart: entries do not influence one another, so survivors must go on unchanged.
    ageless: a new entry is updated as by a new optimizer: no step count enters the update.
    """

    keys: dict[str, float | str]
    options: list[dict[str, Any]] = field(default_factory=lambda: [{}])
    apart: bool = True
    ageless: bool = False


MOMENTS: dict[str, float | str] = {"exp_avg": 0.0, "exp_avg_sq": 0.0}
WAYS: list[dict[str, Any]] = [{"foreach": False}, {"foreach": True}]
FUSED: list[dict[str, Any]] = [*WAYS, {"fused": True}]

CASES: dict[str, Case] = {
    "SGD": Case(
        {"momentum_buffer": 0.0},
        [{"lr": 0.1, "momentum": 0.9, **w} for w in FUSED]
        + [{"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}],
        ageless=True,
    ),
    "Adam": Case(MOMENTS, [*FUSED, {"maximize": True}]),
    "AdamW": Case({**MOMENTS, "max_exp_avg_sq": 0.0}, [{"amsgrad": True, **w} for w in FUSED]),
    "NAdam": Case(MOMENTS, WAYS),
    "RAdam": Case(MOMENTS, WAYS),
    "Adamax": Case({"exp_avg": 0.0, "exp_inf": 0.0}, WAYS),
    "Adagrad": Case({"sum": 0.25}, [{"initial_accumulator_value": 0.25, **w} for w in FUSED], ageless=True),
    "Adadelta": Case({"square_avg": 0.0, "acc_delta": 0.0}, WAYS, ageless=True),
    "RMSprop": Case(
        {"square_avg": 0.0, "momentum_buffer": 0.0, "grad_avg": 0.0},
        [{"momentum": 0.9, "centered": True, **w} for w in WAYS],
        ageless=True,
    ),
    "Rprop": Case({"prev": 0.0, "step_size": 0.02}, [{"lr": 0.02, **w} for w in WAYS], ageless=True),
    "ASGD": Case({"ax": "value"}, [{"t0": 0.0, "lr": 0.1, **w} for w in WAYS]),
    "Adafactor": Case({"variance": 0.0}, WAYS, apart=False),
}

# these cannot train a vector of values with dense gradients by ordinary steps
SPECIAL = {
    "LBFGS": "one history over all parameters: cleared, see test_lbfgs",
    "Muon": "accepts matrices only",
    "SparseAdam": "accepts sparse gradients only",
}


def optimizer_classes() -> dict[str, type[Optimizer]]:
    found = {name: getattr(torch.optim, name) for name in torch.optim.__all__}
    return {
        n: c
        for n, c in found.items()
        if isinstance(c, type) and issubclass(c, Optimizer) and c is not Optimizer
    }


def test_the_table_is_complete() -> None:
    missing = set(optimizer_classes()) - set(CASES) - set(SPECIAL)
    assert not missing, f"add {missing} to the conformance table"


def test_muon_and_sparse_adam_refuse() -> None:
    w = weight()
    if "Muon" in optimizer_classes():
        with pytest.raises(ValueError, match="2D"):
            torch.optim.Muon(w.parameters())
    optimizer = torch.optim.SparseAdam(list(w.parameters()))
    w.values.sum().backward()
    with pytest.raises(RuntimeError, match="does not support dense gradients"):
        optimizer.step()


def weight(seed: int = 0) -> SparseWeight:
    g = torch.Generator().manual_seed(seed)
    return SparseWeight((3, 4), torch.arange(0, SIZE, 2), torch.randn(NNZ, generator=g))


def gradients(steps: int, seed: int = 1) -> Tensor:
    """A gradient for each position, so that a connection meets the same one wherever its entry is."""
    return torch.randn(steps, SIZE, generator=torch.Generator().manual_seed(seed))


def train(w: SparseWeight, optimizer: Optimizer, gradient_SP: Tensor) -> None:
    for gradient_P in gradient_SP:
        w.values.grad = gradient_P[w.index].clone()
        optimizer.step()


def rewire(w: SparseWeight, optimizer: Optimizer) -> Rewiring:
    rewiring = swap(w, torch.tensor([1, 4]), GROWN, torch.tensor([0.5, -0.5]))
    remap_state(optimizer, w.values, rewiring, NNZ)
    return rewiring


def each(condition: Callable[[Case], bool] = lambda case: True) -> Any:
    present = optimizer_classes()
    return pytest.mark.parametrize(
        ("name", "options"),
        [
            pytest.param(n, options, id=f"{n}-{i}")
            for n, case in CASES.items()
            if n in present and condition(case)
            for i, options in enumerate(case.options)
        ],
    )


def build(name: str, options: dict[str, Any], w: SparseWeight) -> Optimizer:
    made: Optimizer = optimizer_classes()[name](w.parameters(), **options)
    return made


@each()
def test_entries(name: str, options: dict[str, Any]) -> None:
    """State of the parameter's shape moves bit for bit or starts fresh; the rest is untouched."""
    w = weight()
    optimizer = build(name, options, w)
    train(w, optimizer, gradients(4))
    before = copy.deepcopy(dict(optimizer.state[w.values]))
    rewiring = rewire(w, optimizer)
    state = optimizer.state[w.values]
    assert set(state) == set(before)
    moved = {key for key, value in before.items() if isinstance(value, Tensor) and value.shape == (NNZ,)}
    assert moved == set(CASES[name].keys)
    new = [i for i in range(w.nnz) if i not in rewiring.kept_new.tolist()]
    for key in state:
        if key in moved:
            assert state[key].dtype == before[key].dtype
            assert state[key][rewiring.kept_new].equal(before[key][rewiring.kept_old])
            start = CASES[name].keys[key]
            expected = w.values.detach()[new] if start == "value" else torch.full((2,), float(start))
            assert state[key][new].equal(expected), key
        elif isinstance(before[key], Tensor):
            assert state[key].equal(before[key])
        else:
            assert state[key] == before[key]


@each(lambda case: case.apart)
def test_survivors_go_on_as_if_nothing_had_happened(name: str, options: dict[str, Any]) -> None:
    gradient_SP = gradients(10)
    changed, untouched = weight(), weight()
    for w, evolves in ((changed, True), (untouched, False)):
        optimizer = build(name, options, w)
        train(w, optimizer, gradient_SP[:4])
        if evolves:
            rewiring = rewire(w, optimizer)
        train(w, optimizer, gradient_SP[4:])
    torch.testing.assert_close(
        changed.values[rewiring.kept_new], untouched.values[rewiring.kept_old], rtol=1e-6, atol=1e-7
    )


@each(lambda case: case.ageless)
def test_new_connections_train_as_with_a_new_optimizer(name: str, options: dict[str, Any]) -> None:
    gradient_SP = gradients(10)
    w = weight()
    optimizer = build(name, options, w)
    train(w, optimizer, gradient_SP[:4])
    rewiring = rewire(w, optimizer)
    fresh = SparseWeight((3, 4), w.index, w.values.detach().clone())
    train(w, optimizer, gradient_SP[4:])
    train(fresh, build(name, options, fresh), gradient_SP[4:])
    new = [i for i in range(w.nnz) if i not in rewiring.kept_new.tolist()]
    torch.testing.assert_close(w.values[new], fresh.values[new])
    assert not torch.allclose(w.values, fresh.values)


@each()
@pytest.mark.parametrize("kept", [[], [1], [0, 1, 2, 3, 4, 5]], ids=["none", "one", "all"])
def test_any_length_trains_on(name: str, options: dict[str, Any], kept: list[int]) -> None:
    w = weight()
    optimizer = build(name, options, w)
    train(w, optimizer, gradients(3))
    for grown in (torch.tensor([1, 3, 7]), torch.tensor([], dtype=torch.int64)):
        entries = torch.tensor([e for e in kept if e < w.nnz], dtype=torch.int64)
        old_nnz = w.nnz
        grown = grown[~torch.isin(grown, w.index[entries])]
        remap_state(optimizer, w.values, swap(w, entries, grown, torch.zeros(grown.numel())), old_nnz)
        if w.nnz == 0 and name == "Adafactor":
            continue  # torch's divides by the number of entries
        train(w, optimizer, gradients(3))
        assert bool(w.values.isfinite().all())
        assert w.values.shape == w.index.shape


@each()
def test_state_dict_still_loads(name: str, options: dict[str, Any]) -> None:
    w = weight()
    optimizer = build(name, options, w)
    train(w, optimizer, gradients(3))
    rewire(w, optimizer)
    other = SparseWeight((3, 4), w.index, w.values.detach().clone())
    resumed = build(name, options, other)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(w, optimizer, gradients(4, seed=9))
    train(other, resumed, gradients(4, seed=9))
    assert w.values.equal(other.values)


@each()
def test_no_state_yet(name: str, options: dict[str, Any]) -> None:
    w = weight()
    optimizer = build(name, options, w)
    rewire(w, optimizer)
    train(w, optimizer, gradients(2))
    assert bool(w.values.isfinite().all())


def test_lbfgs() -> None:
    w, bias = weight(), nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.LBFGS([w.values, bias], lr=0.5, max_iter=4)
    target = torch.randn(3, 4)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = (w.dense() + bias[:, None] - target).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert len(optimizer.state) > 0
    rewiring = swap(w, torch.tensor([0, 2, 3, 5]), torch.tensor([0, 1, 5]), torch.zeros(3))  # 6 become 5
    remap_state(optimizer, w.values, rewiring, NNZ)
    assert len(optimizer.state) == 0
    for _ in range(20):
        optimizer.step(closure)
    closure()
    # least squares: the gradient vanishes at the optimum, which it finds from where it was
    assert w.values.grad is not None
    assert float(w.values.grad.norm()) < 1e-3


def test_a_parameter_of_another_optimizer_is_left_alone() -> None:
    w, other = weight(), nn.Parameter(torch.ones(NNZ))
    for optimizer in (torch.optim.Adam([other]), torch.optim.LBFGS([other])):
        other.grad = torch.ones(NNZ)
        optimizer.step(lambda: other.sum())  # type: ignore[arg-type]
        state = copy.deepcopy(optimizer.state_dict())
        rewire(w, optimizer)
        assert str(optimizer.state_dict()) == str(state)
        w = weight()


def test_groups_have_their_own_learning_rates() -> None:
    a, b = weight(), weight(1)
    optimizer = torch.optim.Rprop([{"params": [a.values], "lr": 0.5}, {"params": [b.values], "lr": 0.03}])
    for w in (a, b):
        w.values.grad = torch.ones(NNZ)
    optimizer.step()
    rewire(b, optimizer)
    assert optimizer.state[b.values]["step_size"][[0, 5]].tolist() == pytest.approx([0.03] * 2)


def test_tensor_learning_rate() -> None:
    w = weight()
    optimizer = torch.optim.Rprop(w.parameters(), lr=torch.tensor(0.25))
    train(w, optimizer, gradients(1))
    rewire(w, optimizer)
    assert optimizer.state[w.values]["step_size"][0] == 0.25


class Unusual(Optimizer):
    """An optimizer of someone else: nested state, counters, a copy in another type."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p] = {
                    "step": torch.ones(1),
                    "history": [p.grad.clone(), (p.grad * 2,)],
                    "more": {"master": p.grad.double()},
                    "count": torch.ones(p.shape, dtype=torch.int64),
                    "name": "x",
                }


def test_nested_state_of_other_optimizers() -> None:
    w = SparseWeight((1, 3), torch.tensor([1]), torch.ones(1))
    optimizer = Unusual(w.parameters())
    w.values.grad = torch.full((1,), 3.0)
    optimizer.step()
    remap_state(
        optimizer,
        w.values,
        swap(w, torch.tensor([], dtype=torch.int64), torch.tensor([0]), torch.zeros(1)),
        1,
    )
    state = optimizer.state[w.values]
    assert state["step"].tolist() == [1.0]
    assert state["history"][0].tolist() == [0.0, 3.0]
    assert state["history"][1][0].tolist() == [0.0, 6.0]
    assert state["more"]["master"].dtype == torch.float64
    assert state["count"].tolist() == [0, 1]
    assert state["name"] == "x"
