"""Sets of positions as bytes: nothing is lost, near the entropy, and hostile bytes do no harm."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regraft import positions
from regraft.errors import InputError
from regraft.federated.subsets import entropy_bits, pack, unpack


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_what_was_packed_comes_back(case):
    size, chosen = case
    index = torch.tensor(sorted(chosen), dtype=torch.int64)
    assert torch.equal(unpack(pack(index, size), size, len(chosen)), index)


@pytest.mark.parametrize("size", [2**31 + 7, 2**40])
def test_positions_beyond_32_bits_come_back(size):
    index = torch.tensor([0, 5, 2**31, size - 1])
    assert torch.equal(unpack(pack(index, size), size, 4), index)


@pytest.mark.parametrize("density", [0.001, 0.01, 0.05, 0.1, 0.2, 0.5])
def test_uniform_positions_take_little_more_than_their_entropy(density, generator):
    size = 200_704
    count = round(density * size)
    packed = pack(positions.sample(size, count, generator), size)
    assert 8 * len(packed) < 1.06 * entropy_bits(size, count)


def test_a_set_is_never_larger_than_its_bitmap(generator):
    for count in (1, 500, 900, 1000):
        assert len(pack(positions.sample(1000, count, generator), 1000)) <= 126


def test_the_entropy_is_the_logarithm_of_the_number_of_sets():
    assert entropy_bits(50, 7) == pytest.approx(math.log2(math.comb(50, 7)))


@given(st.binary(max_size=60), st.integers(0, 80), st.integers(1, 500))
def test_any_bytes_are_positions_or_an_error(data, count, size):
    try:
        index = unpack(data, size, count)
    except InputError:
        return
    assert index.numel() == count
    positions.check(index, size)


def test_huge_quotients_are_refused():
    with pytest.raises(InputError, match="out of range"):
        unpack(bytes([60]) + b"\xff" * 7 + b"\xf1", 2**40, 1)


def test_a_count_beyond_the_weight_is_refused():
    with pytest.raises(InputError, match="do not fit a weight of 8"):
        unpack(b"\x00\xff\xff", 8, 9)
