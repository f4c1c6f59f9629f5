"""Moving entries: literal cases, and the property that every entry ends where it belongs."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft import SparseWeight
from regraft.evolve.rewire import complement, move, swap


@given(st.integers(0, 40).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, max(n - 1, 0))))))
def test_complement(case: tuple[int, set[int]]) -> None:
    n, entries = case
    inside = sorted(e for e in entries if e < n)
    kept = complement(torch.tensor(inside, dtype=torch.int64), n)
    assert kept.tolist() == [i for i in range(n) if i not in inside]


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
    kept = sorted(data.draw(st.sets(st.sampled_from(range(len(active)))))) if active else []
    survivors = [active[e] for e in kept]
    free = [p for p in range(size) if p not in survivors]
    grown = sorted(data.draw(st.sets(st.sampled_from(free)))) if free else []
    w = SparseWeight((1, size), torch.tensor(active, dtype=torch.int64), torch.randn(len(active)))
    parameter = w.values
    old = dict(zip(w.index.tolist(), w.values.tolist(), strict=True))
    fresh = torch.randn(len(grown))
    rewiring = swap(w, torch.tensor(kept, dtype=torch.int64), torch.tensor(grown, dtype=torch.int64), fresh)
    expected = {p: old[p] for p in survivors} | dict(zip(grown, fresh.tolist(), strict=True))
    assert dict(zip(w.index.tolist(), w.values.tolist(), strict=True)) == expected
    assert w.index.tolist() == sorted(expected)
    assert w.values is parameter
    assert rewiring.kept_old.tolist() == kept
    assert [w.index.tolist()[i] for i in rewiring.kept_new.tolist()] == survivors
