"""Algebra on sorted positions, against Python's sets."""

import resource

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from regraft import positions
from regraft.errors import InputError

SIZE = 60
SETS = st.sets(st.integers(0, SIZE - 1))


def tensor(items):
    return torch.tensor(sorted(items), dtype=torch.int64)


@given(SETS, SETS)
def test_operations_equal_those_of_sets(a, b):
    x, y = tensor(a), tensor(b)
    assert positions.union(x, y).tolist() == sorted(a | b)
    assert positions.intersection(x, y).tolist() == sorted(a & b)
    assert positions.difference(x, y).tolist() == sorted(a - b)


@given(SETS, st.lists(st.integers(0, SIZE - 1)))
def test_contains_answers_each_query_in_any_order(a, queries):
    found = positions.contains(tensor(a), torch.tensor(queries, dtype=torch.int64))
    assert found.dtype == torch.bool
    assert found.tolist() == [q in a for q in queries]


@given(SETS, SETS, SETS)
def test_laws(a, b, c):
    x, y, z = tensor(a), tensor(b), tensor(c)
    u, i, d = positions.union, positions.intersection, positions.difference
    assert torch.equal(u(x, y), u(y, x))
    assert torch.equal(u(u(x, y), z), u(x, u(y, z)))
    assert torch.equal(i(x, u(y, z)), u(i(x, y), i(x, z)))
    assert torch.equal(d(x, u(y, z)), i(d(x, y), d(x, z)))
    assert torch.equal(u(x, i(x, y)), x)
    assert torch.equal(u(d(x, y), i(x, y)), x)


@given(SETS)
def test_nth_absent_lists_the_complement(a):
    absent = [p for p in range(SIZE) if p not in a]
    assert positions.nth_absent(tensor(a), torch.arange(len(absent))).tolist() == absent
    backwards = torch.arange(len(absent)).flip(0)
    assert positions.nth_absent(tensor(a), backwards).tolist() == absent[::-1]


@given(SETS, st.data())
def test_sample_absent_draws_distinct_inactive_positions(a, data):
    k = data.draw(st.integers(0, SIZE - len(a)))
    seed = data.draw(st.integers(0, 2**31))
    drawn = positions.sample_absent(tensor(a), SIZE, k, torch.Generator().manual_seed(seed))
    assert drawn.dtype == torch.int64
    assert len(drawn) == k
    assert torch.equal(positions.check(drawn, SIZE), drawn)
    assert not set(drawn.tolist()) & a


@given(st.integers(0, 200), st.data())
def test_sample_ranks_draws_exactly_k_sorted(population, data):
    k = data.draw(st.integers(0, population))
    drawn = positions.sample_ranks(population, k, torch.Generator().manual_seed(0))
    assert len(drawn) == k
    assert torch.equal(positions.check(drawn, population), drawn)


@pytest.mark.parametrize("k", [2, 7], ids=["by rejection", "by permutation"])
def test_sample_absent_is_uniform_over_sets(k):
    """Every k-subset of the 12 inactive positions of 20 comes equally often: chi-square over all of them."""
    active = torch.tensor([0, 3, 4, 5, 11, 12, 18, 19])
    generator = torch.Generator().manual_seed(7)
    seen: dict[tuple[int, ...], int] = {}
    draws = 6000
    for _ in range(draws):
        drawn = tuple(positions.sample_absent(active, 20, k, generator).tolist())
        seen[drawn] = seen.get(drawn, 0) + 1
    subsets = {2: 66, 7: 792}[k]
    assert len(seen) <= subsets
    counts = list(seen.values()) + [0] * (subsets - len(seen))
    assert stats.chisquare(counts).pvalue > 1e-3


def test_the_uniformity_test_would_notice_a_bias():
    """The same statistic on a sampler that is slightly off, so that the test above means something."""
    generator = torch.Generator().manual_seed(7)
    weights = torch.ones(66)
    weights[:10] = 1.5
    drawn = torch.multinomial(weights, 6000, replacement=True, generator=generator)
    assert stats.chisquare(torch.bincount(drawn, minlength=66).numpy()).pvalue < 1e-3


def test_same_seed_same_positions_and_the_generator_moves_on():
    first = torch.Generator().manual_seed(5)
    again = torch.Generator().manual_seed(5)
    a = positions.sample(10_000, 100, first)
    assert torch.equal(a, positions.sample(10_000, 100, again))
    assert not torch.equal(a, positions.sample(10_000, 100, first))


def test_huge_sizes_take_memory_of_the_drawn_only(generator):
    size = 2**40
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    active = positions.sample(size, 20_000, generator)
    grown = positions.sample_absent(active, size, 20_000, generator)
    both = positions.union(active, grown)
    grew_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert len(both) == 40_000
    assert int(both[-1]) > size // 2
    assert grew_kib < 64 * 1024


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (torch.tensor([0, 2, 2]), r"not strictly increasing at entry 2 \(2 then 2\)"),
        (torch.tensor([3, 1]), r"not strictly increasing at entry 1 \(3 then 1\)"),
        (torch.tensor([-1, 1]), r"holds the position -1, but positions must be in \[0, 10\)"),
        (torch.tensor([1, 10]), r"holds the position 10, but positions must be in \[0, 10\)"),
        (torch.tensor([0.0, 1.0]), "must be a one-dimensional tensor of integer positions"),
        (torch.tensor([True]), "must be a one-dimensional tensor of integer positions"),
        (torch.tensor([[0, 1]]), r"has shape \(1, 2\)"),
        (torch.tensor(3), r"has shape \(\)"),
    ],
)
def test_the_door_refuses(index, message):
    with pytest.raises(InputError, match=message):
        positions.check(index, 10)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_the_door_lets_integers_in_as_int64(dtype):
    checked = positions.check(torch.tensor([0, 9], dtype=dtype), 10)
    assert checked.dtype == torch.int64
    assert checked.tolist() == [0, 9]
    assert positions.check(torch.empty(0, dtype=dtype), 0).tolist() == []


@pytest.mark.parametrize("k", [-1, 11])
def test_impossible_draws_are_refused(k):
    with pytest.raises(InputError, match=f"cannot draw {k} distinct positions out of 10"):
        positions.sample(10, k)


def test_growing_more_than_is_absent_is_refused():
    with pytest.raises(InputError, match="cannot grow 3 connections: only 2 of 4 positions are inactive"):
        positions.sample_absent(torch.tensor([0, 1]), 4, 3)


@given(st.integers(1, 6), st.integers(1, 9), st.data())
def test_every_row_gets_its_positions(rows, cols, data):
    k = data.draw(st.integers(1, cols))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    index = positions.sample_rows(rows, cols, k, generator)
    assert torch.equal(positions.check(index, rows * cols), index)
    assert (index // cols).bincount(minlength=rows).tolist() == [k] * rows


def test_positions_of_a_row_are_uniform():
    # every pair out of five columns equally often: 10 pairs, 4000 expected, standard deviation 60
    index = positions.sample_rows(40_000, 5, 2, torch.Generator().manual_seed(0)) % 5
    pairs = (index.view(-1, 2) * torch.tensor([5, 1])).sum(1).unique(return_counts=True)[1]
    assert pairs.numel() == 10
    assert (pairs - 4000).abs().max() < 300
