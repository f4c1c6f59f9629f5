"""What is grown: uniform over the inactive positions, with the initial values asked for."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from regraft import SparseWeight, positions
from regraft.errors import InputError, MismatchError
from regraft.evolve import INITS, Context, Growth, RandomGrowth, grow_rules, random
from regraft.evolve import grow as grows


def context(seed: int = 0) -> Context:
    return Context("0.weight", torch.Generator().manual_seed(seed))


def weight(shape: tuple[int, ...], nnz: int, dtype: torch.dtype = torch.float32) -> SparseWeight:
    g = torch.Generator().manual_seed(7)
    index = positions.sample(math.prod(shape), nnz, g)
    return SparseWeight(shape, index, torch.randn(nnz, generator=g).to(dtype))


@given(st.integers(1, 8), st.integers(1, 8), st.data())
@settings(max_examples=80)
def test_grows_exactly_k_inactive_positions(rows: int, columns: int, data: st.DataObject) -> None:
    size = rows * columns
    nnz = data.draw(st.integers(0, size))
    gone = data.draw(st.integers(0, nnz))
    w = weight((rows, columns), nnz)
    survivors = w.index[gone:]
    for k in range(size - survivors.numel() + 1):
        growth = random(w, survivors, k, context())
        index = growth.index.tolist()
        assert len(index) == k
        assert index == sorted(set(index))
        assert not set(index) & set(survivors.tolist())
        assert all(0 <= p < size for p in index)
        assert growth.values.shape == (k,)


def test_uniform_over_what_is_inactive_after_dropping() -> None:
    w = SparseWeight((2, 3), torch.tensor([0, 1, 2]), torch.ones(3))
    survivors = torch.tensor([1])  # 0 and 2 were just dropped
    g = context()
    counts: Counter[int] = Counter()
    draws = 5000
    for _ in range(draws):
        counts.update(random(w, survivors, 2, g).index.tolist())
    assert set(counts) == {0, 2, 3, 4, 5}
    for seen in counts.values():
        # each with probability 2/5; 5 standard deviations
        assert abs(seen - 0.4 * draws) < 5 * math.sqrt(draws * 0.4 * 0.6)


def test_too_many() -> None:
    w = weight((2, 2), 3)
    with pytest.raises(InputError, match="cannot grow 2 connections: only 1"):
        random(w, w.index, 2, context())


def test_zeros_is_the_default() -> None:
    w = weight((10, 10), 20)
    assert random(w, w.index, 30, context()).values.equal(torch.zeros(30))


@pytest.mark.parametrize(
    ("init", "bound"), [("fan_in", math.sqrt(50 / 200)), ("dense_fan_in", math.sqrt(1 / 40))]
)
def test_uniform_initial_values(init: str, bound: float) -> None:
    w = weight((50, 40), 200)  # 4 connections per unit
    values = RandomGrowth(init)(w, w.index, 1500, context()).values
    assert float(values.abs().max()) <= bound
    assert float(values.max()) > 0.98 * bound
    assert float(values.min()) < -0.98 * bound
    # variance of a uniform number: bound^2 / 3
    assert float(values.var()) == pytest.approx(bound**2 / 3, rel=0.1)


def test_fan_in_of_an_empty_weight_is_that_of_what_grows() -> None:
    w = weight((10, 40), 0)
    values = RandomGrowth("fan_in")(w, w.index, 160, context()).values
    assert 0.2 < float(values.abs().max()) <= 0.25


def test_dense_fan_in_is_the_range_of_torch() -> None:
    w = weight((50, 40), 200)
    layer = torch.nn.Linear(40, 50)
    grown = RandomGrowth("dense_fan_in")(w, w.index, 1800, context()).values
    assert float(grown.abs().max()) == pytest.approx(float(layer.weight.detach().abs().max()), rel=0.02)


@pytest.mark.parametrize("init", sorted(INITS))
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_values_have_the_weights_type(init: str, dtype: torch.dtype) -> None:
    w = weight((4, 3, 3, 3), 20, dtype)
    assert RandomGrowth(init)(w, w.index, 5, context()).values.dtype == dtype


def test_the_generator_decides_everything() -> None:
    w = weight((20, 20), 50)
    state = torch.get_rng_state()
    a, b, c = (RandomGrowth("fan_in")(w, w.index, 40, context(s)) for s in (1, 1, 2))
    assert a.index.equal(b.index)
    assert a.values.equal(b.values)
    assert not a.index.equal(c.index)
    assert torch.get_rng_state().equal(state)


def test_initial_values_of_ones_own() -> None:
    def by_row(weight: SparseWeight, index: Tensor, context: Context) -> Tensor:
        return (index // weight.fan_in_size).float()

    w = weight((3, 4), 2)
    growth = RandomGrowth(by_row)(w, w.index, 6, context())
    assert growth.values.tolist() == [float(p // 4) for p in growth.index.tolist()]
    with pytest.raises(MismatchError, match=r"'0\.weight' have shape \(1,\), but 6"):
        RandomGrowth(lambda weight, index, context: torch.ones(1))(w, w.index, 6, context())


@pytest.mark.parametrize(
    ("index", "values", "error"),
    [
        ([3, 2], 2, "not strictly increasing"),
        ([3, 6], 2, r"must be in \[0, 6\)"),
        ([3], 1, "gave 1 positions"),
        ([3, 4], 1, r"\(1,\) values"),
    ],
)
def test_rules_that_break_their_promise(index: list[int], values: int, error: str) -> None:
    w = SparseWeight((2, 3), torch.tensor([0, 1]), torch.ones(2))
    growth = Growth(torch.tensor(index), torch.zeros(values))
    with pytest.raises((InputError, MismatchError), match=error):
        grows.check_growth(growth, w, 2, context())


def test_unknown_names() -> None:
    with pytest.raises(InputError, match="did you mean 'fan_in'"):
        RandomGrowth("fan-in")
    with pytest.raises(InputError, match="did you mean 'random'"):
        grow_rules.by_name("randon")
    assert RandomGrowth() == random
