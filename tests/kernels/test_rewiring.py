"""Dropping, growing and merging positions; compiled code against plain torch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.errors import InputError
from regraft.kernels import native, rewiring


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
@pytest.mark.parametrize(("dropped", "grown"), [([0], [4]), ([9], [2]), ([1, 0], [2]), ([0], [3, 2])])
def test_exchange_refuses(
    compiled: bool, dropped: list[int], grown: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(native, "available", lambda: False)
    with pytest.raises(InputError):
        rewiring.exchange(torch.tensor([1, 4]), torch.tensor(dropped), torch.tensor(grown))
