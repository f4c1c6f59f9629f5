"""Updates of clients as bytes: the message, its positions, the door behind it, Flower's records."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from regraft import Topology, models, positions, sparsify
from regraft.errors import RegraftError
from regraft.federated import Plan, Update, decode, encode
from regraft.federated.strategy import SparseMerge, receive
from regraft.federated.subsets import pack, unpack

from . import mutate
from .target import Target, require

TYPES = ("float32", "float16", "bfloat16")
START = struct.Struct("<4sBBBIQ8s")


def _network(seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    return sparsify(models.build("mlp:6-12-8-3", generator=generator), density=0.3, generator=generator)


@functools.cache
def _shared() -> tuple[nn.Module, Plan, Topology]:
    model = _network(0)
    return model, Plan.of(model), Topology.of(_network(1))


@functools.cache
def _messages() -> tuple[bytes, ...]:
    """In every type, whole and as changes, with and without statistics."""
    _, plan, base = _shared()
    found = []
    for number, dtype in enumerate(TYPES):
        statistics = {"fc1": torch.arange(12.0), "née": torch.rand(3)} if number else {}
        update = Update.of(_network(number), round=4, client="ab", examples=10, statistics=statistics)
        found += [encode(update, plan, dtype), encode(update, plan, dtype, base)]
    return tuple(found)


def sealed(body: bytes) -> bytes:
    """A message whose checksum is right."""
    return body + hashlib.blake2b(body, digest_size=8).digest()


def _changed(rng: random.Random, seeds: tuple[bytes, ...]) -> bytes:
    seed = rng.choice(seeds)
    way = rng.random()
    if way < 0.03:
        return seed
    if way < 0.15:
        return mutate.changed(rng, seed, seeds)
    body = bytearray(seed[:-8])
    if rng.random() < 0.3:  # a field of the start
        fields: list[Any] = list(START.unpack(body[: START.size]))
        at = rng.randrange(1, 6)
        width = (1, 1, 1, 4, 8)[at - 1]
        fields[at] = rng.choice((0, 1, 2, 3, *mutate.NUMBERS)) % (1 << 8 * width)
        body[: START.size] = START.pack(*fields)
    if rng.random() < 0.6:  # a number of positions, or a length
        at = rng.randrange(START.size, len(body) - 8)
        struct.pack_into("<Q", body, at, rng.choice(mutate.NUMBERS) % (1 << 64))
    if rng.random() < 0.7:
        body[START.size :] = mutate.changed(
            rng, bytes(body[START.size :]), [s[START.size : -8] for s in seeds]
        )
    return sealed(bytes(body))


def _read(case: bytes, folder: Path) -> None:
    _, plan, base = _shared()
    got = decode(case, plan, base)
    plan.check(got)
    for name, entries in got.layers.items():
        positions.check(entries.index, plan.sparse[name].size)
    again = decode(encode(got, plan, "float32", base), plan, base)
    require(
        (again.round, again.examples, again.client) == (got.round, got.examples, got.client),
        "the sender changed",
    )
    for name, entries in got.layers.items():
        require(torch.equal(entries.index, again.layers[name].index), "positions changed")
        same = torch.equal(entries.values.nan_to_num(7.0), again.layers[name].values.nan_to_num(7.0))
        require(same, "values changed")
    require(again.statistics.keys() == got.statistics.keys(), "statistics changed")


def _door(case: bytes, folder: Path) -> None:
    """A round of three clients, of which one is hostile."""
    model, _, base = _shared()
    under_way = SparseMerge().begin(model, 4, examples={"ab": 10, "cd": 20})
    door = under_way.door
    before = {n: t.clone() for n, t in model.state_dict().items()}
    reason = receive(under_way, case, "ab", base)
    require((reason is None) == ("ab" in door.accepted), "accepted and turned away at once")
    require(
        all(torch.equal(t, before[n]) for n, t in model.state_dict().items()), "a message changed the model"
    )
    if reason is not None:
        require(bool(door.rejected[-1][2]), "no sentence")
        raise RegraftError(door.rejected[-1][2])
    merged = under_way.finish()
    require(
        all(bool(t.isfinite().all()) for t in merged.state_dict().values()), "the merged model is not finite"
    )
    Topology.of(merged)


def _lists(rng: random.Random) -> tuple[bytes, int, int]:
    size = rng.choice((1, 8, 60, 1000, 10**5, 2**31, 2**40))
    count = rng.randrange(min(size, 40) + 1)
    packed = pack(torch.tensor(sorted(rng.sample(range(size), count)), dtype=torch.int64), size)
    if rng.random() < 0.9 and packed:
        packed = mutate.changed(rng, packed)
    if rng.random() < 0.3:
        size = abs(rng.choice(mutate.NUMBERS))
    if rng.random() < 0.3:
        count = rng.choice((count + 1, count - 1, 2 * count, abs(rng.choice(mutate.NUMBERS))))
    return packed, size, max(count, 0)


def _list(case: tuple[bytes, int, int], folder: Path) -> None:
    packed, size, count = case
    index = unpack(packed, size, count)
    require(index.numel() == count, "another number of positions")
    positions.check(index, size)
    require(torch.equal(unpack(pack(index, size), size, count), index), "positions changed")


def _records(rng: random.Random) -> tuple[str, str, tuple[int, ...], bytes, bytes]:
    """Name, type, shape and bytes of an array; a topology that a node remembers."""
    raw = np.arange(9, dtype=np.uint8)
    held = io.BytesIO()
    np.save(held, raw if rng.random() < 0.5 else raw.astype(np.int64), allow_pickle=False)
    data = held.getvalue() if rng.random() < 0.1 else mutate.changed(rng, held.getvalue())
    index = np.sort(
        np.array([rng.choice((0, 1, 5, 20, *mutate.NUMBERS)) % 2**63 for _ in range(6)], dtype=np.int64)
    )
    name = rng.choice(("update", "update", "update", "x", ""))
    dtype = rng.choice(("uint8", "uint8", "int64", "float32", "O", "V8", "\ud800"))
    return name, dtype, tuple(rng.choice(((9,), (9,), (3, 3), (), (2**40,), (-1,)))), data, index.tobytes()


def _record(case: tuple[str, str, tuple[int, ...], bytes, bytes], folder: Path) -> None:
    from flwr.app import Array, ArrayRecord, RecordDict

    from regraft.federated.flower import records

    name, dtype, shape, data, index = case
    model = _shared()[0]
    state = RecordDict()
    kept = {
        n: Array(np.frombuffer(index, dtype=np.int64))
        for n, m in model.named_modules()
        if hasattr(m, "index")
    }
    state[records.TOPOLOGY] = ArrayRecord(kept)
    found = records.remembered(state, model)
    require(found is None or set(found) == set(kept), "another topology")
    array = Array(dtype=dtype, shape=shape, stype="numpy.ndarray", data=data)
    message = records.message_of(ArrayRecord({name: array}))
    require(isinstance(message, bytes), "no bytes")


GROUP = "messages"
TARGETS: tuple[Target, ...] = (
    Target("message", GROUP, 130_000, lambda rng: _changed(rng, _messages()), _read),
    Target("message-merged", GROUP, 30_000, lambda rng: _changed(rng, _messages()), _door),
    Target("positions", GROUP, 60_000, _lists, _list),
)
if importlib.util.find_spec("flwr") is not None:
    import flwr.app  # noqa: F401  (its many modules are no cost of the first input)

    TARGETS += (Target("flower-records", GROUP, 10_000, _records, _record),)
