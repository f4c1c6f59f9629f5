"""The two trainings of a merge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regraft.gates import Gated, Gates, Rising, gate_sizes, l0_loss, set_evolution
from regraft.gates.stages import Plan, finetune, scaled_gradients, train_gates
from regraft.graph import concatenate, trace
from regraft.losses import CrossEntropy

MakeNet = Callable[..., nn.Module]
Batches = list[tuple[Tensor, Tensor]]


def plan(batches: Any, **changes: Any) -> Plan:
    fields: dict[str, Any] = {
        "loss": CrossEntropy(), "lr": 0.05, "momentum": 0.9, "weight_decay": 0.0, "seed": 0, "evolve": None,
        "on_epoch": None, "by_connections": True,
    }  # fmt: skip
    return Plan(batches, **{**fields, **changes})


def big_student(net: MakeNet, density: float | None = None) -> Gated:
    parents = [net(seed, density) for seed in range(2)]
    big, groups = concatenate(parents, trace(parents[0]))
    return Gated(big, groups, Gates(gate_sizes(groups)))


def test_within_the_block_one_rate_does_for_narrow_and_wide_groups() -> None:
    """The L0 loss pushes gates of equal probability alike, however many there are."""
    gates = Gates({"narrow": 2, "wide": 200}, spread=0.0)
    with scaled_gradients(gates):
        l0_loss(gates, 0.5).backward()
    scaled = gates.log_alpha.grad
    assert scaled is not None
    assert torch.allclose(scaled, scaled[0].expand(202))
    gates.log_alpha.grad = None
    l0_loss(gates, 0.5).backward()
    assert gates.log_alpha.grad is not None
    assert gates.log_alpha.grad[0].item() == pytest.approx(scaled[0].item() / 4)
    assert gates.log_alpha.grad[-1].item() == pytest.approx(scaled[0].item() / 400)


def test_lambda_rises_from_epoch_to_epoch(net: MakeNet, batches: Batches) -> None:
    rising = Rising(0.1, 0.2)
    history = train_gates(big_student(net), plan(batches), rising, 0.01, 4, 0.5)
    assert history.column("lambda") == [rising(epoch) for epoch in range(4)]


def test_weights_between_the_networks_train(net: MakeNet, batches: Batches) -> None:
    gated = big_student(net)
    across = gated.model.fc2.weight[:8, 10:]
    assert bool((across == 0).all())
    train_gates(gated, plan(batches), Rising(), 0.01, 1, 0.5)
    assert bool((gated.model.fc2.weight[:8, 10:] != 0).any())


def test_weight_decay_is_of_the_weights_alone(net: MakeNet, batches: Batches) -> None:
    """A decay that would shrink log alpha to nothing leaves it where it is."""
    gated = big_student(net)
    before = gated.gates.log_alpha.detach().clone()
    train_gates(gated, plan(batches, lr=1e-3, weight_decay=100.0), Rising(), 1e-9, 1, 0.5)
    assert torch.allclose(gated.gates.log_alpha, before, atol=1e-4)


def test_sparse_units_are_counted_anew_each_epoch(net: MakeNet, batches: Batches) -> None:
    for by_connections in (True, False):
        gated = big_student(net, 0.4)
        train_gates(
            gated, plan(batches, evolve=set_evolution, by_connections=by_connections), Rising(), 0.01, 3, 0.5
        )
        found = gated.gates.averaging.clone()
        gated.count_connections()
        assert torch.equal(found, gated.gates.averaging) == by_connections


def test_fine_tuning_for_no_epoch_does_nothing(net: MakeNet, batches: Batches) -> None:
    model = net(0)
    before = model.fc1.weight.detach().clone()
    assert finetune(model, plan(batches), 0, None).epochs == []
    assert torch.equal(model.fc1.weight, before)


def test_steps_are_counted_where_the_loader_has_no_length(batches: Batches) -> None:
    class Endless:
        def __iter__(self) -> Any:
            return iter(batches)

    assert plan(batches).steps == plan(Endless()).steps == 4


def test_the_last_epoch_of_the_usual_evolution_is_quiet(generator: torch.Generator) -> None:
    evolver = set_evolution(10, 3, generator)
    assert (evolver.every, evolver.total) == (10, 21)
    assert set_evolution(10, 1, generator).total == 1
