"""Messages: nothing lost, small, and read without trust."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.federated.nets import network

from regraft import Topology, positions, sparsify
from regraft.errors import InputError
from regraft.federated import Entries, Plan, Rejected, Update, decode, encode
from regraft.federated.subsets import entropy_bits
from regraft.models import build

PLAN = Plan.of(network())
GOOD = encode(Update.of(network(), round=4, client="a", examples=10), PLAN)


def sealed(body):
    return body + hashlib.blake2b(body, digest_size=8).digest()


def same(a, b, tolerance=0.0):
    for name, entries in a.layers.items():
        assert torch.equal(entries.index, b.layers[name].index)
        torch.testing.assert_close(entries.values, b.layers[name].values, rtol=tolerance, atol=0)
    for name, tensor in a.dense.items():
        torch.testing.assert_close(tensor, b.dense[name], rtol=tolerance, atol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("float16", 1e-3), ("bfloat16", 1e-2)])
@pytest.mark.parametrize("base", [None, 0, 1])
def test_a_message_says_what_the_update_said(dtype, tolerance, base):
    sent = Update.of(network(0), round=4, client="née", examples=10, statistics={"fc1": torch.rand(12)})
    known = None if base is None else Topology.of(network(base))
    got = decode(encode(sent, PLAN, dtype, known), PLAN, known)
    assert (got.round, got.client, got.examples) == (4, "née", 10)
    same(sent, got, tolerance)
    assert torch.equal(got.statistics["fc1"], sent.statistics["fc1"])


def test_dense_networks_and_integers_travel_too():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    model(torch.randn(5, 3))
    sent = Update.of(model, round=0, client="a", examples=1)
    got = decode(encode(sent, Plan.of(model), "float16"), model)
    assert got.dense["1.num_batches_tracked"].dtype == torch.int64
    same(sent, got, 1e-3)


def test_positions_take_at_most_1_3_times_their_entropy():
    model = sparsify(build("mlp:784-256-128-10"), density=0.05)
    sent = Update.of(model, round=0, client="a", examples=1)
    shell = dataclasses.replace(
        sent, layers={n: Entries(e.index[:0], e.values[:0]) for n, e in sent.layers.items()}
    )
    values = 2 * sent.nnz
    bits = 8 * (
        len(encode(sent, Plan.of(model), "float16")) - len(encode(shell, Plan.of(model), "float16")) - values
    )
    best = sum(entropy_bits(c.size, c.nnz) for c in Topology.of(model).values())
    assert bits < 1.05 * best


def test_few_changes_take_few_bytes(generator):
    model = sparsify(build("mlp:784-256-10"), density=0.05)
    plan, base = Plan.of(model), Topology.of(model)
    whole = len(encode(Update.of(model, round=0, client="a", examples=1), plan))
    weight = model.fc1.weight
    new = positions.sample_absent(weight.index, weight.size, 100, generator)
    weight.replace(positions.union(weight.index[100:], new), weight.values)
    sent = Update.of(model, round=1, client="a", examples=1)
    changed = len(encode(sent, plan, base=base))
    assert whole - changed > 0.9 * sum(entropy_bits(c.size, c.nnz) for c in base.values()) / 8 - 400
    same(sent, decode(encode(sent, plan, base=base), plan, base))


def test_changes_are_not_sent_where_the_whole_is_smaller():
    few = sparsify(build("mlp:50-40-10"), density=0.01)
    many = sparsify(build("mlp:50-40-10"), density=0.5)
    sent, plan = Update.of(few, round=0, client="a", examples=1), Plan.of(few)
    assert len(encode(sent, plan, base=Topology.of(many))) <= len(encode(sent, plan)) + 8


def rejected(data, base=None):
    with pytest.raises(Rejected) as caught:
        decode(data, PLAN, base)
    return caught.value.reason


@pytest.mark.parametrize("length", [0, 7, 20, 36, len(GOOD) - 1])
def test_a_message_cut_short(length):
    assert rejected(GOOD[:length]) == "corrupt"
    assert rejected(sealed(GOOD[:length])) == "corrupt"


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_byte_changed_on_the_way(at, change):
    data = bytearray(GOOD)
    data[at] ^= change
    assert rejected(bytes(data)) in ("corrupt", "version")


@given(st.integers(4, len(GOOD) - 9), st.binary(min_size=1, max_size=40))
def test_hostile_bytes_with_a_good_checksum_are_read_or_rejected(at, junk):
    body = bytearray(GOOD[:-8])
    body[at : at + len(junk)] = junk
    try:
        got = decode(sealed(bytes(body)), PLAN)
    except Rejected:
        return
    PLAN.check(got)
    for name, entries in got.layers.items():
        positions.check(entries.index, PLAN.sparse[name].size)


def test_other_versions_architectures_and_bases():
    body = bytearray(GOOD[:-8])
    body[4] = 9
    assert rejected(sealed(bytes(body))) == "version"
    assert rejected(b"safetens" + GOOD[8:]) == "corrupt"
    other = sparsify(build("mlp:6-12-9-3"), density=0.3)
    sent = Update.of(other, round=0, client="a", examples=1)
    assert rejected(encode(sent, Plan.of(other))) == "architecture"
    base = Topology.of(network(0))
    changes = encode(Update.of(network(1), round=0, client="a", examples=1), PLAN, base=base)
    assert rejected(changes) == rejected(changes, Topology.of(network(2))) == "base"
    assert rejected(sealed(GOOD[:-8] + b"more")) == "corrupt"


def test_a_count_that_no_message_could_hold_allocates_nothing():
    start = GOOD.index(b"\x01\x00a") + 3
    body = (
        GOOD[: start + 1]
        + (2**62).to_bytes(8, "little")
        + (2**32 - 1).to_bytes(4, "little")
        + GOOD[start + 13 : -8]
    )
    assert rejected(sealed(body)) == "corrupt"


def test_what_cannot_be_sent():
    sent = Update.of(network(), round=0, client="a", examples=1)
    with pytest.raises(InputError, match="unknown type of values 'float8'"):
        encode(sent, PLAN, "float8")
    large = dataclasses.replace(sent, dense={**sent.dense, "fc1.bias": torch.full((12,), 1e5)})
    with pytest.raises(InputError, match="float16 cannot hold"):
        encode(large, PLAN, "float16")
