"""The gates of a network: randomness of their own, state, shapes, temperatures that train."""

from __future__ import annotations

import copy

import pytest
import torch

from regraft.errors import InputError, MismatchError
from regraft.gates import Gates, HardConcrete

SIZES = {"a": 3, "b": 5}


def test_values_are_random_in_training_and_certain_in_evaluation() -> None:
    gates = Gates(SIZES)
    assert not torch.equal(gates(), gates())
    gates.eval()
    assert torch.equal(gates(), gates())
    assert torch.equal(gates(), gates.distribution.certain(gates.log_alpha))


def test_the_same_seed_gives_the_same_gates_and_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    a, b, other = Gates(SIZES, seed=5), Gates(SIZES, seed=5), Gates(SIZES, seed=6)
    assert torch.equal(a.log_alpha, b.log_alpha)
    assert torch.equal(a(), b())
    assert not torch.equal(a.log_alpha, other.log_alpha)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_state_carries_the_random_numbers_on() -> None:
    gates = Gates(SIZES)
    gates()
    saved = copy.deepcopy(gates.state_dict())
    rest = [gates() for _ in range(3)]
    again = Gates(SIZES, seed=9)
    again.load_state_dict(saved)
    assert all(torch.equal(again(), values) for values in rest)
    twin = copy.deepcopy(again)
    assert torch.equal(twin(), again())


def test_a_state_without_a_generators_state_is_refused() -> None:
    gates = Gates(SIZES)
    with pytest.raises(MismatchError, match="no generator's state"):
        gates.set_extra_state(torch.zeros(3, dtype=torch.uint8))


def test_locations_start_around_the_mean() -> None:
    gates = Gates({"a": 10_000}, location=1.0, spread=0.01)
    assert gates.log_alpha.mean().item() == pytest.approx(1.0, abs=0.001)
    assert gates.log_alpha.std().item() == pytest.approx(0.01, rel=0.05)


def test_numbers_that_are_passed_in_replace_the_own_ones() -> None:
    gates = Gates(SIZES)
    uniform = torch.full((8,), 0.5)
    assert torch.equal(gates(uniform), gates.distribution.sample(gates.log_alpha, uniform))
    assert torch.equal(gates(uniform), gates(uniform))


def test_vectors_are_split_and_averaged_by_group() -> None:
    gates = Gates(SIZES)
    values = torch.tensor([1.0, 2, 3, 10, 10, 10, 10, 20])
    assert {name: v.tolist() for name, v in gates.split(values).items()} == {
        "a": [1, 2, 3],
        "b": [10, 10, 10, 10, 20],
    }
    assert gates.group_means(values).tolist() == [2.0, 12.0]


def test_temperatures_train_if_asked() -> None:
    gates = Gates(SIZES, train_beta=True)
    assert gates.beta is not None
    assert torch.allclose(gates.beta, torch.full((8,), 2 / 3))
    gates().sum().backward()
    assert gates.delta is not None
    assert gates.delta.grad is not None
    assert gates.delta.grad.abs().sum() > 0
    assert Gates(SIZES).delta is None
    assert Gates(SIZES, train_beta=True, distribution=HardConcrete(1.0)).beta is not None


@pytest.mark.parametrize(
    ("sizes", "options", "words"),
    [
        ({}, {}, "one unit or more"),
        ({"a": 0}, {}, "one unit or more"),
        (SIZES, {"spread": -1.0}, "spread is -1.0"),
        (SIZES, {"seed": -1}, "seed is -1"),
        (SIZES, {"seed": 1.5}, "seed is 1.5"),
    ],
)
def test_bad_gates_are_refused(sizes: dict[str, int], options: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Gates(sizes, **options)
