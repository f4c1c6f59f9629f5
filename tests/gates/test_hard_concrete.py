"""The distribution: closed forms against sampling and SciPy, limits, bad constants."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import InputError
from regraft.gates import HardConcrete

LOCATIONS = torch.linspace(-3, 3, 7, dtype=torch.float64)


@pytest.mark.parametrize("beta", [2 / 3, 0.3, 1.0])
def test_the_open_probability_is_the_share_of_samples_above_zero(
    beta: float, generator: torch.Generator
) -> None:
    gate = HardConcrete(beta)
    uniform = torch.rand(200_000, 1, dtype=torch.float64, generator=generator)
    drawn = gate.sample(LOCATIONS, uniform)
    assert torch.allclose((drawn > 0).double().mean(0), gate.open_probability(LOCATIONS), atol=0.004)


def test_the_samples_have_the_distribution_function_of_the_paper(generator: torch.Generator) -> None:
    """Louizos et al., equation 10, with s the variable before it is stretched and cut."""
    stats = pytest.importorskip("scipy.stats")
    gate, location = HardConcrete(), 0.7

    def distribution(z):  # of the cut variable, between its two points of mass
        s = (torch.as_tensor(z) - gate.gamma) / (gate.zeta - gate.gamma)
        return torch.sigmoid(torch.logit(s) * gate.beta - location).numpy()

    uniform = torch.rand(20_000, dtype=torch.float64, generator=generator)
    drawn = gate.sample(torch.tensor(location, dtype=torch.float64), uniform)
    inside = drawn[(drawn > 0) & (drawn < 1)].numpy()
    low, high = distribution(torch.tensor(0.0)), distribution(torch.tensor(1.0))
    found = stats.kstest(inside, lambda z: (distribution(z) - low) / (high - low))
    assert found.pvalue > 0.01


@given(st.floats(0.01, 0.99), st.floats(0.05, 1.0))
def test_location_inverts_the_open_probability(probability: float, beta: float) -> None:
    gate = HardConcrete(beta)
    location = torch.tensor(gate.location(probability), dtype=torch.float64)
    assert gate.open_probability(location).item() == pytest.approx(probability, rel=1e-9)


@given(st.floats(-50, 50), st.floats(0, 1, exclude_max=True))
def test_values_are_in_the_unit_interval_and_rise_with_the_location(location: float, uniform: float) -> None:
    gate = HardConcrete()
    u = torch.tensor([uniform], dtype=torch.float64)
    low, high = (gate.sample(torch.tensor([x], dtype=torch.float64), u) for x in (location, location + 1))
    assert 0 <= low.item() <= high.item() <= 1


def test_with_beta_near_zero_the_gate_is_a_coin(generator: torch.Generator) -> None:
    drawn = HardConcrete(1e-4).sample(torch.zeros(5000), torch.rand(5000, generator=generator))
    assert ((drawn == 0) | (drawn == 1)).double().mean() > 0.99
    assert (drawn == 1).double().mean().item() == pytest.approx(0.5, abs=0.03)


def test_in_evaluation_far_locations_are_wholly_open_or_closed() -> None:
    assert HardConcrete().certain(torch.tensor([-5.0, 5.0])).tolist() == [0.0, 1.0]
    assert HardConcrete().certain(torch.tensor([0.0])).item() == pytest.approx(0.5)


def test_gradients_agree_with_finite_differences() -> None:
    gate = HardConcrete()
    location = torch.tensor([-0.3, 0.2, 0.9], dtype=torch.float64, requires_grad=True)
    beta = torch.tensor([0.5, 0.6, 0.7], dtype=torch.float64, requires_grad=True)
    uniform = torch.tensor([0.4, 0.5, 0.6], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: gate.sample(a, uniform, b), (location, beta))
    assert torch.autograd.gradcheck(gate.open_probability, (location, beta))
    assert torch.autograd.gradcheck(gate.certain, (location,))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"beta": 0.0}, "beta is 0.0"),
        ({"beta": math.nan}, "beta is nan"),
        ({"gamma": 0.1}, "gamma is 0.1"),
        ({"zeta": 1.0}, "zeta is 1.0"),
    ],
)
def test_constants_out_of_range_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        HardConcrete(**options)


def test_a_certain_gate_has_no_location() -> None:
    with pytest.raises(InputError, match=r"must be in \(0, 1\)"):
        HardConcrete().location(1.0)
