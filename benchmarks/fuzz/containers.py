"""Mutations of safetensors files that stay files: the table, the header in it, the numbers behind it."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Sequence
from typing import Any

from . import mutate, trees

WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


def split(data: bytes) -> tuple[dict[str, Any], bytearray]:
    """Table and numbers of a file."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])


def join(table: dict[str, Any], body: bytes) -> bytes:
    """The file again, its length right and its table as hostile as the tree is."""
    text = trees.text(table).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def _tensor(rng: random.Random, table: dict[str, Any], body: bytearray) -> None:
    """Change the numbers of one tensor: order, range, sign, NaN."""
    names = [n for n in table if n != "__metadata__"]
    if not names:
        return
    names = [n for n in names if n.endswith(".index")] * 2 + names
    entry = table[rng.choice(names)]
    start, stop = entry["data_offsets"]
    width = WIDTHS[entry["dtype"]]
    count = (stop - start) // width
    if count < 1:
        return
    a, b = rng.randrange(count), rng.randrange(count)
    cells = [slice(start + i * width, start + (i + 1) * width) for i in (a, b)]
    kind = rng.randrange(5)
    if kind == 0:
        body[cells[0]], body[cells[1]] = body[cells[1]], body[cells[0]]
    elif kind == 1:
        body[cells[0]] = body[cells[1]]
    elif kind == 2 and entry["dtype"] in ("F32", "F64"):
        number = rng.choice((float("nan"), float("inf"), -float("inf"), 1e30, 0.0, -0.0, 1e-40))
        body[cells[0]] = struct.pack("<f" if width == 4 else "<d", number)
    else:
        body[cells[0]] = (rng.choice(mutate.NUMBERS) % (1 << 8 * width)).to_bytes(width, "little")


def _resize(rng: random.Random, table: dict[str, Any], body: bytearray) -> None:
    """Another number of elements, with all places of the table put right."""
    names = [n for n in table if n != "__metadata__"]
    if not names:
        return
    name = rng.choice(names)
    entry = table[name]
    start, stop = entry["data_offsets"]
    width, more = WIDTHS[entry["dtype"]], rng.choice((-1, 1, 1, 2, 64))
    if len(entry["shape"]) != 1 or entry["shape"][0] + more < 0:
        entry["shape"] = rng.choice(
            ([(stop - start) // width], [(stop - start) // width, 1], [0], [1, *entry["shape"]])
        )
        return
    entry["shape"][0] += more
    if more > 0:
        body[stop:stop] = rng.randbytes(more * width)
    else:
        del body[stop - width : stop]
    for other in names:
        table[other]["data_offsets"] = [
            at + more * width if at >= stop and not (other == name and at == start) else at
            for at in table[other]["data_offsets"]
        ]


def _type(rng: random.Random, table: dict[str, Any], body: bytearray) -> None:
    """Another type of the same width."""
    names = [n for n in table if n != "__metadata__"]
    if names:
        entry = table[rng.choice(names)]
        entry["dtype"] = rng.choice([t for t, w in WIDTHS.items() if w == WIDTHS[entry["dtype"]]])


def changed(rng: random.Random, seeds: Sequence[bytes], key: str) -> bytes:
    """One of ``seeds`` after some changes; ``key`` is the metadata's name of the JSON header."""
    seed = rng.choice(seeds)
    way = rng.random()
    if way < 0.03:
        return seed
    if way < 0.35:
        return mutate.changed(rng, seed, seeds)
    table, body = split(seed)
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        rng.choice((_tensor, _tensor, _resize, _type))(rng, table, body)
    if rng.random() < 0.6:
        metadata = table["__metadata__"]
        metadata[key] = trees.changed(rng, metadata[key])
    if rng.random() < 0.4:
        for _ in range(rng.randint(1, 2)):
            trees.change(rng, table)
    made = join(table, bytes(body))
    return mutate.changed(rng, made, seeds, 1) if rng.random() < 0.15 else made
