"""What is dropped: the weights closest to zero, by sign or together, in exact numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from regraft import SparseWeight
from regraft.errors import InputError
from regraft.evolve import DROPS, Context, magnitude, signed_magnitude
from regraft.evolve import drop as drops


def weight(values: list[float]) -> SparseWeight:
    n = len(values)
    return SparseWeight((2, n + 3), torch.arange(n) * 2, torch.tensor(values))


def context(seed: int = 0) -> Context:
    return Context("0.weight", torch.Generator().manual_seed(seed))


def set_reference(values: np.ndarray, fraction: float) -> set[int]:
    """SET's rule by two sorts, for values without zeros and ties."""
    positive = [i for i in np.argsort(values) if values[i] > 0]
    negative = [i for i in np.argsort(-values) if values[i] < 0]
    return set(positive[: round(fraction * len(positive))]) | set(negative[: round(fraction * len(negative))])


class TestSigned:
    @pytest.mark.parametrize(
        ("values", "fraction", "expected"),
        [
            ([0.4, 0.1, 0.3, 0.2, -4.0, -1.0], 0.5, [1, 3, 5]),
            ([5.0, 6.0, 7.0, 8.0, -0.1, -0.2], 0.5, [0, 1, 4]),  # by sign, not by magnitude
            ([1.0, 2.0, 3.0], 1 / 3, [0]),
            ([-1.0, -2.0, -3.0], 1 / 3, [0]),
            ([1.0, -1.0], 0.0, []),
            ([1.0, -1.0], 1.0, [0, 1]),
            ([1.0], 0.3, []),
            ([], 0.3, []),
        ],
    )
    def test_literal(self, values: list[float], fraction: float, expected: list[int]) -> None:
        assert signed_magnitude(weight(values), fraction, context()).tolist() == expected

    @given(st.integers(1, 80), st.floats(0, 1), st.integers(0, 2**30))
    @settings(max_examples=100)
    def test_against_two_sorts(self, n: int, fraction: float, seed: int) -> None:
        values = np.random.default_rng(seed).standard_normal(n).astype(np.float32)
        dropped = signed_magnitude(weight(values.tolist()), fraction, context())
        assert set(dropped.tolist()) == set_reference(values, fraction)
        assert dropped.tolist() == sorted(dropped.tolist())

    def test_zeros_go_first_on_both_sides(self) -> None:
        values = [0.0, 1.0, 2.0, 0.0, -1.0, -2.0, 0.0, -0.0]  # 4 zeros: 2 count as negative, 2 as positive
        dropped = signed_magnitude(weight(values), 0.5, context())
        assert dropped.tolist() == [0, 3, 6, 7]
        fewer = signed_magnitude(weight(values), 0.25, context()).tolist()
        assert len(fewer) == 2
        assert set(fewer) < {0, 3, 6, 7}

    def test_only_zeros_are_drawn(self) -> None:
        drawn = {tuple(signed_magnitude(weight([0.0] * 20), 0.2, context(s)).tolist()) for s in range(10)}
        assert all(len(d) == 4 for d in drawn)
        assert len(drawn) > 5

    def test_infinite_weights_are_large(self) -> None:
        assert signed_magnitude(weight([torch.inf, 1.0, -torch.inf, -1.0]), 0.5, context()).tolist() == [1, 3]


class TestMagnitude:
    @pytest.mark.parametrize(
        ("values", "fraction", "expected"),
        [
            ([0.4, -0.1, 0.3, 0.2], 0.5, [1, 3]),
            ([5.0, 6.0, 7.0, -0.1, -0.2, -0.3], 0.5, [3, 4, 5]),
            ([0.0, 1.0], 0.5, [0]),
            ([], 0.5, []),
        ],
    )
    def test_literal(self, values: list[float], fraction: float, expected: list[int]) -> None:
        assert magnitude(weight(values), fraction, context()).tolist() == expected

    def test_ties_are_drawn(self) -> None:
        drawn = {tuple(magnitude(weight([1.0, -1.0] * 10), 0.2, context(s)).tolist()) for s in range(10)}
        assert len(drawn) > 5


@pytest.mark.parametrize("name", sorted(DROPS))
class TestEveryRule:
    @given(
        values=st.lists(st.integers(-3, 3), max_size=40), fraction=st.floats(0, 1), seed=st.integers(0, 99)
    )
    @settings(max_examples=60)
    def test_counts_and_order(self, name: str, values: list[int], fraction: float, seed: int) -> None:
        dropped = DROPS[name](weight([float(v) for v in values]), fraction, context(seed))
        assert dropped.dtype == torch.int64
        assert dropped.tolist() == sorted(set(dropped.tolist()))
        assert abs(dropped.numel() - fraction * len(values)) <= 1
        assert all(0 <= e < len(values) for e in dropped.tolist())

    @pytest.mark.parametrize("k", range(11))
    def test_every_count_can_be_had(self, name: str, k: int) -> None:
        values = [float(v) for v in range(1, 11)]
        assert DROPS[name](weight(values), k / 10, context()).tolist() == list(range(k))

    def test_same_seed_same_entries(self, name: str) -> None:
        w = weight([0.0, 1.0, -1.0] * 20)
        assert DROPS[name](w, 0.4, context(5)).equal(DROPS[name](w, 0.4, context(5)))

    def test_nan(self, name: str) -> None:
        with pytest.raises(InputError, match=r"'0\.weight'.*NaN"):
            DROPS[name](weight([1.0, float("nan")]), 0.5, context())

    def test_half_precision(self, name: str) -> None:
        w = SparseWeight((1, 4), torch.arange(4), torch.tensor([1, 2, -3, -4], dtype=torch.bfloat16))
        assert DROPS[name](w, 0.5, context()).numel() == 2

    def test_nothing_changes_the_weight(self, name: str) -> None:
        w = weight([0.0, 1.0, -1.0, 2.0])
        before: tuple[Tensor, Tensor] = (w.index.clone(), w.values.detach().clone())
        DROPS[name](w, 0.5, context())
        assert w.index.equal(before[0])
        assert w.values.equal(before[1])


def test_unknown_rule() -> None:
    with pytest.raises(InputError, match="did you mean 'signed-magnitude'"):
        drops.by_name("signed-magnitud")
