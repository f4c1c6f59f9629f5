"""The L0 loss against its equation, and the weight that rises."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import InputError
from regraft.gates import Gates, HardConcrete, Rising, decided, l0_loss


def test_the_loss_is_the_equation_of_the_thesis(generator: torch.Generator) -> None:
    gates = Gates({"a": 4, "b": 7}).double()
    gates.weigh(torch.ones(11))  # anew, in double precision
    gates.log_alpha.data = torch.randn(11, dtype=torch.float64, generator=generator)
    d = HardConcrete()
    p = [1 / (1 + math.exp(-(a - d.beta * math.log(0.1 / 1.1)))) for a in gates.log_alpha.tolist()]
    for share in (1 / 2, 1 / 3):
        by_hand = ((share - sum(p[:4]) / 4) ** 2 + (share - sum(p[4:]) / 7) ** 2) / 2
        assert l0_loss(gates, share).item() == pytest.approx(by_hand, rel=1e-12)


def test_the_loss_is_zero_with_exactly_the_share_open() -> None:
    gates = Gates({"a": 4}, spread=0.0)
    gates.log_alpha.data = torch.tensor([50.0, 50.0, -50.0, -50.0])
    assert l0_loss(gates, 0.5).item() == pytest.approx(0.0, abs=1e-12)
    assert l0_loss(gates, 0.25).item() == pytest.approx(1 / 16)


def test_gradients_agree_with_finite_differences() -> None:
    gates = Gates({"a": 3, "b": 2}).double()
    p = torch.rand(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: l0_loss(gates, 0.5, p), (p,))


@given(st.floats(0.001, 1.0), st.floats(0.0, 0.5), st.integers(0, 40))
def test_lambda_follows_the_recurrence(start: float, rate: float, epoch: int) -> None:
    rising = Rising(start, rate)
    assert rising(0) == start
    assert rising(epoch + 1) == pytest.approx(rising(epoch) + rate * math.sqrt(rising(epoch)))


def test_lambda_grows_about_quadratically() -> None:
    assert Rising(0.01, 0.05)(150) == pytest.approx((0.1 + 0.05 * 150 / 2) ** 2, rel=0.1)


def test_decided_counts_the_gates_in_between() -> None:
    gates = Gates({"a": 4, "b": 2}, spread=0.0)
    gates.log_alpha.data = torch.tensor([9.0, 9.0, -9.0, -1.6, -1.6, -1.6])
    a, b = decided(gates)
    assert (a.name, a.units, a.undecided) == ("a", 4, 0.25)
    assert (b.units, b.undecided) == (2, 1.0)
    assert a.open == pytest.approx((2 + 0.5) / 4, abs=0.01)


@pytest.mark.parametrize(
    ("start", "rate", "words"), [(0.0, 0.1, "lambda_start"), (math.nan, 0.1, "lambda_start"),
                                 (0.1, -1.0, "lambda_rate")]
)  # fmt: skip
def test_a_weight_out_of_range_is_refused(start: float, rate: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Rising(start, rate)
