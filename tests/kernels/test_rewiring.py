"""Dropping, growing, merging and moving entries: literal cases, compiled code against plain torch, sets."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regraft import SparseWeight
from regraft.errors import InputError
from regraft.kernels import native, rewiring
from regraft.kernels.rewiring import complement, move, parted, swap


@settings(max_examples=80, deadline=None)
@given(
    values=st.lists(st.integers(-5, 5).map(float) | st.floats(width=32, allow_nan=False), max_size=60),
    k=st.integers(0, 70),
    sign=st.sampled_from([-1, 0, 1]),
    wide=st.booleans(),
)
def test_smallest_is_a_stable_sort(values: list[float], k: int, sign: int, wide: bool) -> None:
    v = torch.tensor(values, dtype=torch.float64 if wide else torch.float32)
    got = rewiring.smallest(v, k, sign)
    candidates = [i for i, x in enumerate(v.tolist()) if not sign or (x < 0) == (sign < 0)]
    want = sorted(sorted(candidates, key=lambda i: abs(float(v[i])))[:k])
    assert got.tolist() == want


@pytest.mark.parametrize("compiled", [True, False])
def test_smallest_keeps_nan_and_counts(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(native, "available", lambda: False)
    v = torch.tensor([float("nan"), 1.0, -float("inf"), 0.0, -0.0])
    assert rewiring.smallest(v, 3).tolist() == [1, 3, 4]
    assert rewiring.smallest(v, 4).tolist() == [1, 2, 3, 4]
    with pytest.raises(InputError, match="negative"):
        rewiring.smallest(v, -1)


@settings(max_examples=80, deadline=None)
@given(size=st.integers(1, 300), active=st.floats(0, 1), grow=st.floats(0, 1), seed=st.integers(0, 9))
def test_random_inactive_positions(size: int, active: float, grow: float, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    index = torch.randperm(size, generator=g)[: int(active * size)].sort().values
    k = int(grow * (size - index.numel()))
    got = rewiring.random_inactive(index, size, k, torch.Generator().manual_seed(seed))
    assert got.numel() == k
    assert bool((got.diff() > 0).all())
    assert not set(got.tolist()) & set(index.tolist())
    assert all(0 <= p < size for p in got.tolist())
    again = rewiring.random_inactive(index, size, k, torch.Generator().manual_seed(seed))
    assert torch.equal(got, again)


def test_random_inactive_positions_are_uniform() -> None:
    g = torch.Generator().manual_seed(0)
    index, counts = torch.tensor([1, 4, 5]), torch.zeros(10)
    for _ in range(4000):
        counts[rewiring.random_inactive(index, 10, 2, g)] += 1
    expected = 4000 * 2 / 7
    absent = [0, 2, 3, 6, 7, 8, 9]
    assert float(((counts[absent] - expected) ** 2 / expected).sum()) < 22.5  # chi-squared, 6 df, p = 0.001


def test_too_many_to_grow() -> None:
    with pytest.raises(InputError, match="only 2"):
        rewiring.random_inactive(torch.tensor([0]), 3, 3)


@pytest.mark.parametrize("compiled", [True, False])
def test_exchange_matches_sets(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(native, "available", lambda: False)
    torch.manual_seed(0)
    for _ in range(50):
        index = torch.randperm(60)[:20].sort().values
        dropped = torch.randperm(20)[:7].sort().values
        free = sorted(set(range(60)) - set(index.tolist())) + index[dropped].tolist()
        grown = torch.tensor(sorted(free))[torch.randperm(len(free))[:9]].sort().values
        new, moved = rewiring.exchange(index, dropped, grown)
        stay = [i for i in range(20) if i not in dropped.tolist()]
        assert new.tolist() == sorted(index[stay].tolist() + grown.tolist())
        assert moved.kept_old.tolist() == stay
        assert torch.equal(new[moved.kept_new], index[stay])


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    ("dropped", "grown"),
    [
        ([0], [4]),
        ([9], [2]),
        ([1, 0], [2]),
        ([0, 0], [2]),
        ([-1], [2]),
        ([0, 1, 1], [2]),
        ([0], [3, 2]),
        ([0], [5]),
    ],
)
def test_exchange_refuses(
    compiled: bool, dropped: list[int], grown: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(native, "available", lambda: False)
    with pytest.raises(InputError, match=r"'w', which is active|dropped|grown"):
        rewiring.exchange(
            torch.tensor([1, 4]), torch.tensor(dropped), torch.tensor(grown), size=5, name="'w'"
        )


def test_ties_are_drawn_evenly() -> None:
    g = torch.Generator().manual_seed(0)
    values, counts = torch.tensor([2.0, -1.0, 0.5, 1.0, 1.0, 3.0]), torch.zeros(6)
    for _ in range(3000):
        chosen = rewiring.smallest(values, 2, generator=g)
        assert chosen.tolist() == sorted(chosen.tolist())
        counts[chosen] += 1
    assert counts[[0, 5]].tolist() == [0, 0]
    assert counts[2] == 3000
    assert float(((counts[[1, 3, 4]] - 1000) ** 2 / 1000).sum()) < 13.8  # chi-squared, 2 df, p = 0.001


@pytest.mark.parametrize("sign", [-1, 0, 1])
def test_ties_of_one_sign(sign: int) -> None:
    values = torch.tensor([1.0, -1.0] * 10)
    g = torch.Generator().manual_seed(0)
    drawn = {tuple(rewiring.smallest(values, 3, sign, g).tolist()) for _ in range(20)}
    assert len(drawn) > 5
    for chosen in drawn:
        assert not sign or all((values[i] < 0) == (sign < 0) for i in chosen)


def test_without_ties_nothing_is_drawn() -> None:
    g = torch.Generator().manual_seed(0)
    state = g.get_state()
    assert rewiring.smallest(torch.tensor([3.0, 1.0, 2.0]), 2, generator=g).tolist() == [1, 2]
    assert rewiring.smallest(torch.tensor([1.0, 1.0]), 2, generator=g).tolist() == [0, 1]
    assert g.get_state().equal(state)


@given(st.integers(0, 40).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, max(n - 1, 0))))))
def test_complement(case: tuple[int, set[int]]) -> None:
    n, entries = case
    inside = sorted(e for e in entries if e < n)
    kept = complement(torch.tensor(inside, dtype=torch.int64), n)
    assert kept.tolist() == [i for i in range(n) if i not in inside]


@pytest.mark.parametrize("compiled", [True, False])
@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_parted(compiled: bool, monkeypatch: pytest.MonkeyPatch, case: tuple[int, set[int]]) -> None:
    if not compiled:
        monkeypatch.setattr(native, "available", lambda: False)
    n, gone = case
    index, places = torch.arange(n) * 3, torch.tensor(sorted(gone), dtype=torch.int64)
    stay, left = parted(index, places)
    assert stay.tolist() == [3 * i for i in range(n) if i not in gone]
    assert left.tolist() == [3 * i for i in sorted(gone)]


@pytest.mark.parametrize("places", [[1, 0], [1, 1], [3], [-1], [0, 1, 2, 2], [[0]], [0.5]])
def test_parted_refuses(places: list[object]) -> None:
    with pytest.raises(InputError, match="entries to drop"):
        parted(torch.tensor([1, 4, 6]), torch.tensor(places), "entries to drop")


def test_move_refuses_places_out_of_range() -> None:
    for old, new in (([0, 3], [0, 1]), ([0, 1], [0, 4]), ([-4], [0])):
        with pytest.raises((IndexError, RuntimeError), match=r"out of (range|bounds)"):
            move(torch.ones(3), torch.tensor(old), torch.tensor(new), 4, fresh=0.0)


def test_move_literal() -> None:
    vector = torch.tensor([10.0, 20.0, 30.0])
    old, new = torch.tensor([0, 2]), torch.tensor([1, 2])
    assert move(vector, old, new, 4, fresh=7.0).tolist() == [7, 10, 30, 7]
    assert move(vector, old, new, 4, fresh=torch.tensor([1.0, 2.0])).tolist() == [1, 10, 30, 2]
    assert move(vector.long(), old, new, 3, fresh=0.0).dtype == torch.int64


@given(st.data())
@settings(max_examples=100)
def test_swap_against_a_dictionary(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 30))
    active = sorted(data.draw(st.sets(st.integers(0, size - 1))))
    gone = sorted(data.draw(st.sets(st.sampled_from(range(len(active)))))) if active else []
    survivors = [p for e, p in enumerate(active) if e not in gone]
    free = [p for p in range(size) if p not in survivors]
    grown = sorted(data.draw(st.sets(st.sampled_from(free)))) if free else []
    w = SparseWeight((1, size), torch.tensor(active, dtype=torch.int64), torch.randn(len(active)))
    parameter = w.values
    old = dict(zip(w.index.tolist(), w.values.tolist(), strict=True))
    fresh = torch.randn(len(grown))
    moved = swap(w, torch.tensor(gone, dtype=torch.int64), torch.tensor(grown, dtype=torch.int64), fresh)
    expected = {p: old[p] for p in survivors} | dict(zip(grown, fresh.tolist(), strict=True))
    assert dict(zip(w.index.tolist(), w.values.tolist(), strict=True)) == expected
    assert w.index.tolist() == sorted(expected)
    assert w.values is parameter
    assert [active[e] for e in moved.kept_old.tolist()] == survivors
    assert [w.index.tolist()[i] for i in moved.kept_new.tolist()] == survivors
