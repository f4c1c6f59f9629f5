"""Mutations of bytes and texts."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

NUMBERS = (
    0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 1000, 1024, 4096, 32767, 32768, 65535,
    65536,
    2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**53, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 1,
    2**64, -1, -2, -128, -32768, -(2**31), -(2**62), -(2**63),
)  # fmt: skip
"""Whole numbers at which something overflows, or that no size should be."""

Change = Callable[[random.Random, bytearray], None]


def _flip(rng: random.Random, data: bytearray) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, data: bytearray) -> None:
    data[rng.randrange(len(data))] = rng.choice((0, 255, 127, 128, rng.randrange(256)))


def _number(rng: random.Random, data: bytearray) -> None:
    width = rng.choice((1, 2, 4, 8))
    number = rng.choice(NUMBERS) % (1 << 8 * width)
    at = rng.randrange(len(data))
    data[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))


def _drop(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 1, 2, 4, 8, 64, 1024))]


def _insert(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.choice((1, 1, 2, 4, 8, 64)))


def _repeat(rng: random.Random, data: bytearray) -> None:
    at, length = rng.randrange(len(data)), rng.choice((1, 4, 8, 64, 512))
    data[at:at] = data[at : at + length] * rng.choice((1, 1, 2, 30))


def _cut(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def _extend(rng: random.Random, data: bytearray) -> None:
    data += rng.choice((b"\0", b"\xff", b" ", b"{", rng.randbytes(1))) * rng.choice((1, 7, 8, 4096))


def _blank(rng: random.Random, data: bytearray) -> None:
    at, length = rng.randrange(len(data)), rng.choice((2, 8, 32, 256))
    stop = min(at + length, len(data))
    data[at:stop] = bytes((rng.choice((0, 255)),)) * (stop - at)


def _swap(rng: random.Random, data: bytearray) -> None:
    a, b, length = rng.randrange(len(data)), rng.randrange(len(data)), rng.choice((1, 4, 8, 64))
    data[a : a + length], data[b : b + length] = data[b : b + length], data[a : a + length]


CHANGES: tuple[Change, ...] = (
    _flip, _flip, _flip, _set, _set, _number, _number, _number, _drop, _insert, _repeat, _cut, _extend,
    _blank,
    _swap,
)  # fmt: skip


def changed(rng: random.Random, data: bytes, others: Sequence[bytes] = (), most: int = 4) -> bytes:
    """``data`` after one to ``most`` changes, or spliced with one of ``others``."""
    made = bytearray(data)
    if others and rng.random() < 0.1:
        other = rng.choice(others)
        made[rng.randrange(len(made) + 1) :] = other[rng.randrange(len(other) + 1) :]
    for _ in range(rng.randint(1, most)):
        if not made:
            break
        rng.choice(CHANGES)(rng, made)
    return bytes(made)


HOSTILE = (
    "", " ", "0", "-1", "-0", "1e999", "nan", "inf", "-inf", "9" * 20, "9" * 5000, "0x10", "1_000", "٣", "²",
    "½",
    "\0", "\x1b[2J", "\ud800", "é", "🙂", "\u202e", "\n", "\t", "a" * 300, "(" * 60, "(" * 3000, "[" * 3000,
    ")",
    ":", "::", "=", ",", ",,", "-", "--", "..", "/", "../../etc/passwd", "%s", "{}", "{0}", "true", "null",
    "None",
    "1e-400", "0.1", "1", "2", "10", "100", "1000000000", "99999999999999999999", ";", "'", '"', "\\", "$",
    "*",
)  # fmt: skip
"""Pieces of text that parsers stumble over."""


def changed_text(rng: random.Random, text: str, words: Sequence[str] = (), most: int = 3) -> str:
    """``text`` after some changes; ``words`` are what its grammar knows."""
    for _ in range(rng.randint(1, most)):
        at = rng.randrange(len(text) + 1)
        piece = rng.choice(words) if words and rng.random() < 0.5 else rng.choice(HOSTILE)
        what = rng.randrange(5)
        if what == 0:
            text = text[:at] + piece + text[at:]
        elif what == 1:
            text = text[:at] + piece + text[at + rng.randrange(1, 9) :]
        elif what == 2:
            text = text[:at] + text[at + rng.randrange(1, 6) :]
        elif what == 3:
            other = rng.randrange(len(text) + 1)
            text = text[: min(at, other)] + text[min(at, other) : max(at, other)] * 2 + text[max(at, other) :]
        else:
            text = (
                text[:at]
                + chr(rng.choice((32, 58, 44, 45, 46, 48, 57, 40, 41, rng.randrange(1, 0x3000))))
                + text[at:]
            )
        text = text[:20_000]
    return text
