"""Selection: exact counts, ties that no position wins, one clear error for scores that cannot be ranked."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft import select
from regraft.errors import InputError, MismatchError
from regraft.select import Globally, PerLayer, globally, per_layer, top


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lists(kept: dict[str, torch.Tensor]) -> dict[str, list[int]]:
    return {name: entries.tolist() for name, entries in kept.items()}


class TestTop:
    @pytest.mark.parametrize(
        ("scores", "k", "expected"),
        [
            ([3.0, 1.0, 2.0], 2, [0, 2]),
            ([3.0, 1.0, 2.0], 0, []),
            ([3.0, 1.0, 2.0], 3, [0, 1, 2]),
            ([-1.0, -2.0, -3.0], 1, [0]),
            ([float("inf"), 0.0, float("-inf")], 1, [0]),
            ([float("-inf"), 0.0, float("-inf")], 1, [1]),
            ([1.0, 5.0, 1.0, 5.0], 2, [1, 3]),
            ([], 0, []),
        ],
    )
    def test_literal(self, scores: list[float], k: int, expected: list[int]) -> None:
        kept = top(torch.tensor(scores), k, seeded(0))
        assert kept.tolist() == expected
        assert kept.dtype == torch.int64

    @pytest.mark.parametrize(
        "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.int64]
    )
    def test_any_type(self, dtype: torch.dtype) -> None:
        assert top(torch.tensor([4, 1, 3, 2], dtype=dtype), 2).tolist() == [0, 2]

    def test_bool_scores(self) -> None:
        assert top(torch.tensor([False, True, False, True]), 2).tolist() == [1, 3]

    def test_float64_scores_that_differ_below_float32(self) -> None:
        scores = torch.tensor([1.0, 1.0 + 1e-12, 1.0 - 1e-12], dtype=torch.float64)
        assert top(scores, 1).tolist() == [1]

    def test_gradients_do_not_matter(self) -> None:
        assert top(torch.tensor([1.0, 2.0], requires_grad=True), 1).tolist() == [1]

    def test_ties_by_second_score(self) -> None:
        scores, magnitudes = torch.tensor([1.0, 7.0, 1.0, 1.0]), torch.tensor([3.0, 0.0, 9.0, 5.0])
        assert top(scores, 3, ties=magnitudes).tolist() == [1, 2, 3]

    def test_ties_in_both_scores_are_drawn(self) -> None:
        ones = torch.ones(10)
        drawn = {tuple(top(ones, 2, seeded(s), ties=ones).tolist()) for s in range(20)}
        assert len(drawn) > 5

    def test_ties_are_uniform_and_not_by_position(self) -> None:
        scores = torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0, 2.0])
        g = seeded(1)
        counts: Counter[int] = Counter()
        draws = 4000
        for _ in range(draws):
            kept = top(scores, 3, g).tolist()
            assert len(kept) == 3
            assert 5 in kept
            assert 0 not in kept
            counts.update(kept)
        for tied in (1, 2, 3, 4):
            # two of four: probability 1/2; 5 standard deviations
            assert abs(counts[tied] - draws / 2) < 5 * (draws / 4) ** 0.5

    def test_repeatable_with_and_without_generator(self) -> None:
        ones = torch.ones(50)
        assert top(ones, 9, seeded(3)).equal(top(ones, 9, seeded(3)))
        state = torch.get_rng_state()
        assert top(ones, 9).equal(top(ones, 9))
        assert torch.get_rng_state().equal(state)

    @given(
        st.lists(st.integers(-3, 3), max_size=60).flatmap(
            lambda xs: st.tuples(st.just(xs), st.integers(0, len(xs)))
        ),
        st.integers(0, 2**30),
    )
    @settings(max_examples=200)
    def test_exact_count_and_order_for_every_k(self, case: tuple[list[int], int], seed: int) -> None:
        scores, k = case
        kept = top(torch.tensor(scores, dtype=torch.float32), k, seeded(seed)).tolist()
        assert len(kept) == k
        assert kept == sorted(set(kept))
        left = [s for i, s in enumerate(scores) if i not in kept]
        assert sorted((scores[i] for i in kept), reverse=True) == sorted(scores, reverse=True)[:k]
        assert not kept or not left or min(scores[i] for i in kept) >= max(left)

    def test_nan_is_named(self) -> None:
        with pytest.raises(InputError, match="weight 'a': 2 of 3 scores are NaN"):
            top(torch.tensor([float("nan"), 1.0, float("nan")]), 1, name="weight 'a'")

    @pytest.mark.parametrize("k", [-1, 4])
    def test_impossible_count(self, k: int) -> None:
        with pytest.raises(InputError, match=f"cannot keep {k} of the 3"):
            top(torch.ones(3), k)

    def test_matrix(self) -> None:
        with pytest.raises(InputError, match=r"shape \(2, 2\)"):
            top(torch.ones(2, 2), 1)


class TestPerLayer:
    def test_literal(self) -> None:
        scores = {"a": torch.tensor([1.0, 2.0, 3.0]), "b": torch.tensor([5.0, 4.0])}
        assert lists(per_layer(scores, {"a": 1, "b": 2})) == {"a": [2], "b": [0, 1]}

    def test_density_counts_positions_not_scores(self) -> None:
        scores = {"a": torch.tensor([1.0, 2.0, 3.0]), "b": torch.tensor([5.0, 4.0])}
        assert lists(PerLayer(0.1)(scores, {"a": 20, "b": 10})) == {"a": [1, 2], "b": [0]}

    def test_density_by_name(self) -> None:
        scores = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([5.0, 4.0])}
        kept = PerLayer({"a": 0.5, "b": 1.0})(scores, {"a": 2, "b": 2})
        assert lists(kept) == {"a": [1], "b": [0, 1]}

    def test_floor(self) -> None:
        scores = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([5.0])}
        assert lists(PerLayer(0.01, floor=2)(scores, {"a": 10, "b": 10})) == {"a": [0, 1], "b": [0]}

    def test_minus_infinity_is_never_kept(self) -> None:
        scores = {"a": torch.tensor([1.0, -torch.inf, -torch.inf])}
        with pytest.raises(InputError, match="'a' should keep 2 entries, but only 1"):
            per_layer(scores, {"a": 2})

    def test_names_must_agree(self) -> None:
        with pytest.raises(MismatchError, match=r"\['b'\]"):
            per_layer({"a": torch.ones(1)}, {"a": 1, "b": 1})
        with pytest.raises(MismatchError, match="density"):
            PerLayer({"b": 0.5})({"a": torch.ones(2)}, {"a": 2})

    def test_ties_by_magnitude(self) -> None:
        kept = per_layer({"a": torch.zeros(3)}, {"a": 1}, ties={"a": torch.tensor([0.0, 9.0, 1.0])})
        assert lists(kept) == {"a": [1]}


class TestGlobally:
    def test_literal(self) -> None:
        scores = {"a": torch.tensor([1.0, 9.0]), "b": torch.tensor([8.0, 7.0, 2.0])}
        assert lists(globally(scores, 3)) == {"a": [1], "b": [0, 1]}

    def test_floor_protects_the_weak_layer(self) -> None:
        scores = {"strong": torch.tensor([9.0, 8.0, 7.0, 6.0]), "weak": torch.tensor([0.1, 0.3, 0.2])}
        assert lists(globally(scores, 4)) == {"strong": [0, 1, 2, 3], "weak": []}
        assert lists(globally(scores, 4, floor=2)) == {"strong": [0, 1], "weak": [1, 2]}

    def test_floor_is_all_of_a_small_layer(self) -> None:
        scores = {"a": torch.tensor([9.0, 8.0, 7.0]), "b": torch.tensor([0.0])}
        assert lists(globally(scores, 3, floor=2)) == {"a": [0, 1], "b": [0]}

    def test_floor_too_high(self) -> None:
        with pytest.raises(InputError, match="floor of 3 entries in each of 2 layers needs 6"):
            globally({"a": torch.ones(5), "b": torch.ones(5)}, 5, floor=3)

    def test_floor_with_candidates_out(self) -> None:
        scores = {"a": torch.tensor([5.0, 4.0, 3.0]), "b": torch.tensor([-torch.inf, -torch.inf])}
        assert lists(globally(scores, 2, floor=1)) == {"a": [0, 1], "b": []}

    def test_minus_infinity_is_never_kept(self) -> None:
        scores = {"a": torch.tensor([1.0, -torch.inf]), "b": torch.tensor([2.0])}
        assert lists(globally(scores, 2)) == {"a": [0], "b": [0]}
        with pytest.raises(InputError, match="cannot keep 3 entries in all: 2"):
            globally(scores, 3)

    def test_density_of_all_positions(self) -> None:
        scores = {"a": torch.tensor([1.0, 9.0]), "b": torch.tensor([8.0])}
        assert lists(Globally(0.25)(scores, {"a": 6, "b": 2})) == {"a": [1], "b": [0]}

    def test_mixed_types_are_compared_exactly(self) -> None:
        scores = {
            "a": torch.tensor([1.0], dtype=torch.float32),
            "b": torch.tensor([1.0 + 1e-12, 1.0 - 1e-12], dtype=torch.float64),
        }
        assert lists(globally(scores, 1)) == {"a": [], "b": [0]}
        assert lists(globally(scores, 2)) == {"a": [0], "b": [0]}

    def test_nan_names_the_layer(self) -> None:
        with pytest.raises(InputError, match="'b': 1 of 2 scores are NaN"):
            globally({"a": torch.ones(2), "b": torch.tensor([1.0, torch.nan])}, 1)

    def test_ties_across_layers_favour_none(self) -> None:
        scores = {"a": torch.zeros(10), "b": torch.zeros(10)}
        g = seeded(0)
        in_a = sum(globally(scores, 4, generator=g)["a"].numel() for _ in range(1000))
        assert 1800 < in_a < 2200  # 4000 kept; standard deviation about 29

    def test_ties_by_magnitude(self) -> None:
        scores = {"a": torch.zeros(2), "b": torch.zeros(2)}
        ties = {"b": torch.tensor([3.0, 1.0]), "a": torch.tensor([2.0, 0.0])}
        assert lists(globally(scores, 2, ties=ties)) == {"a": [0], "b": [0]}

    @given(
        st.lists(st.integers(0, 12), min_size=1, max_size=4),
        st.floats(0, 1),
        st.integers(0, 3),
        st.integers(0, 2**30),
    )
    @settings(max_examples=100)
    def test_against_numpy(self, sizes: list[int], share: float, floor: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        values = rng.permutation(sum(sizes)).astype(np.float32)  # no ties
        parts = np.split(values, np.cumsum(sizes)[:-1])
        scores = {str(i): torch.from_numpy(p) for i, p in enumerate(parts)}
        needed = sum(min(floor, n) for n in sizes)
        k = needed + round(share * (sum(sizes) - needed))
        kept = globally(scores, k, floor=floor)
        assert sum(e.numel() for e in kept.values()) == k
        chosen: set[float] = set()
        for p in parts:
            chosen.update(np.sort(p)[::-1][:floor].tolist())
        for v in np.sort(values)[::-1].tolist():
            if len(chosen) < k:
                chosen.add(v)
        got = {v for i, p in enumerate(parts) for v in p[kept[str(i)].numpy()].tolist()}
        assert got == chosen

    def test_empty(self) -> None:
        assert globally({}, 0) == {}
        assert lists(globally({"a": torch.empty(0)}, 0)) == {"a": []}


def test_selections_are_values() -> None:
    assert Globally(0.1) == Globally(0.1, floor=0)
    assert repr(PerLayer(0.1, floor=2)) == "PerLayer(density=0.1, floor=2)"
    assert select.by_name("layer") is PerLayer
    with pytest.raises(InputError, match="did you mean 'global'"):
        select.by_name("globl")


@pytest.mark.parametrize("density", [0.0, 1.5, -0.1, float("nan")])
@pytest.mark.parametrize("kind", [Globally, PerLayer])
def test_density_out_of_range(kind: type[Globally] | type[PerLayer], density: float) -> None:
    with pytest.raises(InputError, match="density is"):
        kind(density)


@pytest.mark.parametrize("kind", [Globally, PerLayer])
def test_negative_floor(kind: type[Globally] | type[PerLayer]) -> None:
    with pytest.raises(InputError, match="floor is -1"):
        kind(0.5, floor=-1)


@pytest.mark.parametrize("k", [-1, 4])
def test_a_global_budget_out_of_range(k: int) -> None:
    with pytest.raises(InputError, match=f"cannot keep {k} entries in all: 3 have a score above -inf"):
        globally({"a": torch.tensor([1.0, 2.0, 3.0, -torch.inf])}, k)


def test_a_negative_floor_is_refused_here_too() -> None:
    with pytest.raises(InputError, match="floor"):
        globally({"a": torch.ones(3)}, 2, floor=-1)


def test_one_number_is_no_vector_of_scores() -> None:
    with pytest.raises(InputError, match="shape"):
        top(torch.tensor(1.0), 0)


@pytest.mark.parametrize("kind", [Globally, PerLayer])
def test_sizes_of_other_layers(kind: type[Globally] | type[PerLayer]) -> None:
    with pytest.raises(MismatchError, match="sizes"):
        kind(0.5)({"a": torch.ones(4)}, {"a": 4, "b": 4})


@pytest.mark.parametrize("kind", [Globally, PerLayer])
def test_layers_may_die_without_a_floor(kind: type[Globally] | type[PerLayer]) -> None:
    assert lists(kind(0.1)({"a": torch.ones(4)}, {"a": 4})) == {"a": []}


def test_scores_that_train_are_ranked() -> None:
    assert top(torch.tensor([1.0, 3.0, 2.0], requires_grad=True), 1).tolist() == [1]
