"""Updates that are wrong: each is turned away by name, the round goes on, the model stays."""

from __future__ import annotations

import dataclasses
import hashlib
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.federated.nets import network

from regraft import Topology
from regraft.federated import REASONS, Entries, Plan, SparseMerge, Trust, Update, encode, receive

PLAN = Plan.of(network())


def honest(client="b", examples=10, round=2):
    return Update.of(network(1), round=round, client=client, examples=examples)


def with_layer(index=None, values=None):
    made = honest()
    entries = made.layers["fc1.weight"]
    changed = Entries(entries.index if index is None else index, entries.values if values is None else values)
    return dataclasses.replace(made, layers={**made.layers, "fc1.weight": changed})


def with_bias(tensor):
    made = honest()
    return dataclasses.replace(made, dense={**made.dense, "fc1.bias": tensor})


INDEX = honest().layers["fc1.weight"].index
VALUES = honest().layers["fc1.weight"].values


def at(tensor, where, value):
    changed = tensor.clone()
    changed[where] = value
    return changed


def without(mapping, name):
    return {n: v for n, v in mapping.items() if n != name}


WRONG = {
    "not-finite": [
        with_layer(values=at(VALUES, 3, torch.nan)), with_layer(values=at(VALUES, 0, torch.inf)),
        with_bias(torch.full((12,), torch.nan)), with_bias(at(torch.zeros(12), 2, -torch.inf)),
        dataclasses.replace(honest(), statistics={"fc1": torch.full((12,), torch.nan)}),
    ],
    "too-large": [with_layer(values=at(VALUES, 1, 1e4)), with_bias(torch.full((12,), -1e30))],
    "unsorted": [with_layer(INDEX.flip(0)), with_layer(at(INDEX, 1, int(INDEX[4])))],
    "duplicated": [with_layer(at(INDEX, 1, int(INDEX[0])))],
    "out-of-range": [with_layer(at(INDEX, -1, 72)), with_layer(at(INDEX, 0, -1)),
                     with_layer(at(INDEX, 0, 2**62))],
    "positions": [with_layer(INDEX.float()), with_layer(INDEX.bool())],
    "shape": [
        with_layer(INDEX[:-1]), with_layer(INDEX[None]), with_bias(torch.zeros(11)),
        with_bias(torch.zeros(12, dtype=torch.int64)),
        dataclasses.replace(honest(), dense=without(honest().dense, "fc1.bias")),
        dataclasses.replace(honest(), layers=without(honest().layers, "fc2.weight")),
        dataclasses.replace(honest(), layers={**honest().layers, "fc9.weight": Entries(INDEX, VALUES)}),
    ],
    "round": [honest(round=1), honest(round=3)],
    "client": [honest("a"), honest("zoe")],
    "examples": [honest(examples=n) for n in (0, -3, 11, 10**12, True, 10.0)],
}  # fmt: skip
CASES = [(reason, number) for reason, wrong in WRONG.items() for number in range(len(wrong))]


@pytest.mark.parametrize(("reason", "number"), CASES)
def test_a_wrong_update_is_turned_away_by_name_and_the_round_goes_on(equal, reason, number):
    rounds = [SparseMerge().begin(network(), 2, examples={"a": 7, "b": 10}) for _ in range(2)]
    for under_way in rounds:
        assert under_way.add(honest("a", 7)) is None
    assert rounds[0].add(WRONG[reason][number]) == reason
    assert [r for _, r, _ in rounds[0].door.rejected] == [reason]
    for under_way in rounds:
        assert under_way.add(honest("b")) is None
    assert equal(rounds[0].finish(), rounds[1].finish())


def test_every_reason_has_an_explanation():
    assert set(WRONG) <= set(REASONS)


def test_more_connections_than_allowed():
    under_way = SparseMerge(trust=Trust(most_density=0.2)).begin(network())
    assert under_way.add(honest(round=0)) == "connections"


FIELDS = ("index", "values", "bias", "round", "examples")


@given(st.data())
def test_whatever_is_in_an_update_the_model_stays_finite_and_sorted(data):
    model = network()
    under_way = SparseMerge().begin(model, 2)
    entries = st.lists(st.integers(-3, 80), max_size=6).map(lambda x: torch.tensor(x, dtype=torch.int64))
    floats = st.floats(width=32, allow_nan=True, allow_infinity=True)
    index = data.draw(entries)
    values = torch.tensor(data.draw(st.lists(floats, min_size=len(index), max_size=len(index))))
    made = dataclasses.replace(
        with_layer(index, values), round=data.draw(st.integers(1, 3)), examples=data.draw(st.integers(-1, 3))
    )
    reason = under_way.add(made)
    assert reason is None or reason in REASONS
    under_way.add(honest("c"))
    after = under_way.finish()
    Topology.of(after)
    assert all(bool(torch.isfinite(p).all()) for p in after.parameters())


def forgeries(count, seed):
    """Messages that are no honest update: cut, mixed up, with values, positions and headers forged and sealed
    again, or honest updates of another round, client or number of examples."""
    draw = random.Random(seed)
    plain = encode(honest("a", 7), PLAN)
    wrong = [encode(u, PLAN) for reason in ("round", "client", "examples") for u in WRONG[reason][:2]
             if isinstance(u.examples, int) and u.examples > 0]  # fmt: skip
    wrong += [encode(u, PLAN) for u in (*WRONG["not-finite"][:2], *WRONG["too-large"])]
    for number in range(count):
        kind = number % 5
        body = bytearray(plain)
        if kind == 0:
            yield bytes(body[: draw.randrange(len(body))])
        elif kind == 1:
            body[draw.randrange(len(body))] ^= draw.randrange(1, 256)
            yield bytes(body)
        elif kind == 2:
            yield draw.randbytes(draw.randrange(300))
        elif kind == 3:
            yield draw.choice(wrong)
        else:  # the header forged, with a checksum that fits
            start = draw.randrange(7, 30)
            forged = (
                plain[:start] + draw.randbytes(draw.randrange(1, 20)) + plain[start + draw.randrange(20) : -8]
            )
            yield forged + hashlib.blake2b(forged, digest_size=8).digest()


def test_ten_thousand_malformed_updates_change_nothing(equal):
    model = network()
    under_way = SparseMerge().begin(model, 2, examples={"a": 7, "b": 10})
    assert under_way.add(honest("b")) is None
    taken = [receive(under_way, message, "a") for message in forgeries(10_000, seed=0)]
    assert None not in taken
    assert set(taken) <= set(REASONS)
    assert len(set(taken)) >= 6
    assert under_way.add(honest("a", 7)) is None
    clean = SparseMerge().begin(model, 2)
    clean.add(honest("b")), clean.add(honest("a", 7))
    assert equal(under_way.finish(), clean.finish())
    assert equal(model, network())
