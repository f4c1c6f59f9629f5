"""Sets of sorted positions as few bytes: gaps in Rice's code, or a bitmap where that is smaller.

The gaps between k of n uniform positions are geometric, for which Rice's code (Rice and Plaunt 1971; Golomb's
with a power of two) is within a few per cent of the entropy, log2 of the number of such sets. Quotients and
remainders of all gaps lie apart, as in Elias and Fano's lists, so that both ends are computed by vectors.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regraft.errors import InputError

Bits = npt.NDArray[np.uint8]

BITMAP = 255
"""In place of Rice's parameter: one bit for each position."""


def entropy_bits(size: int, count: int) -> float:
    """log2 of the number of sets of ``count`` positions out of ``size``: what no code can beat on average.

    >>> round(entropy_bits(4, 2), 3)  # six sets
    2.585
    """
    choose = math.lgamma(size + 1) - math.lgamma(count + 1) - math.lgamma(size - count + 1)
    return choose / math.log(2)


def pack(index: Tensor, size: int) -> bytes:
    """Sorted distinct positions in [0, size) as bytes: one that says how, then the code.

    The code is Rice's with the best parameter, or a bitmap where that is smaller; neither holds the number of
    positions or ``size``, which the reader must know.

    >>> packed = pack(torch.arange(0, 10_000, 20), 10_000)
    >>> len(packed) * 8 / entropy_bits(10_000, 500) < 1.1
    True
    """
    found = index.numpy()
    if not found.size:
        return b""
    gaps = np.diff(found, prepend=-1) - 1
    k = _best_parameter(gaps)
    if _rice_bits(gaps, k) >= size:
        flags = np.zeros(size, dtype=np.uint8)
        flags[found] = 1
        return bytes([BITMAP]) + np.packbits(flags).tobytes()
    quotients = gaps >> k
    unary = np.zeros(int(quotients.sum()) + gaps.size, dtype=np.uint8)
    unary[np.cumsum(quotients + 1) - 1] = 1
    low = ((gaps[:, None] >> np.arange(k)) & 1).astype(np.uint8)
    return bytes([k]) + np.packbits(np.concatenate([low.ravel(), unary])).tobytes()


def unpack(packed: bytes, size: int, count: int) -> Tensor:
    """The positions, int64 [count], that ``pack`` wrote; nothing larger than the bytes' bits is allocated.

    >>> unpack(pack(torch.tensor([2, 3, 7]), 8), 8, 3).tolist()
    [2, 3, 7]

    Raises:
        InputError: not the code of ``count`` positions in [0, size).
    """
    if count == 0:
        _require(not packed, "bytes follow an empty list")
        return torch.empty(0, dtype=torch.int64)
    _require(len(packed) > 1, "the list of positions is missing")
    _require(0 < count <= size, f"{count} positions do not fit a weight of {size}")
    how, body = packed[0], np.frombuffer(packed, dtype=np.uint8, offset=1)
    if how == BITMAP:
        _require(body.size == (size + 7) // 8, "the bitmap has another length")
        bits = np.unpackbits(body)
        _require(not bits[size:].any(), "the bitmap goes on after its end")
        found = bits.nonzero()[0]
    else:
        found = _unrice(body, how, size, count)
    _require(found.size == count, f"it has {found.size} positions, not {count}")
    return torch.from_numpy(found.astype(np.int64, copy=False))


def _unrice(body: Bits, k: int, size: int, count: int) -> npt.NDArray[np.int64]:
    """Positions from remainders and quotients; ends with an InputError where they would be too far."""
    _require(k < 63 and 8 * body.size >= count * (k + 1), "the list of positions is cut short")
    bits = np.unpackbits(body)
    low, unary = bits[: count * k].reshape(count, k), bits[count * k :]
    stops = unary.nonzero()[0]
    _require(stops.size == count, f"it has {stops.size} positions, not {count}")
    _require(unary.size - int(stops[-1]) <= 8, "bytes follow the last position")
    quotients = np.diff(stops, prepend=-1) - 1
    # in floating point first: a hostile quotient would overflow int64
    reach = float(quotients.sum()) * 2.0**k + count * 2.0**k
    _require(reach < 2.0**62, "positions are out of range")
    remainders = low.astype(np.int64) @ (1 << np.arange(k, dtype=np.int64))
    found: npt.NDArray[np.int64] = np.cumsum((quotients.astype(np.int64) << k) + remainders + 1) - 1
    _require(int(found[-1]) < size, f"the position {int(found[-1])} is out of range [0, {size})")
    return found


def _best_parameter(gaps: npt.NDArray[np.int64]) -> int:
    """Rice's parameter with the fewest bits, near log2 of the mean gap."""
    near = max(int(gaps.mean() * math.log(2) + 1).bit_length() - 1, 0)
    return min(range(max(near - 1, 0), near + 3), key=lambda k: _rice_bits(gaps, k))


def _rice_bits(gaps: npt.NDArray[np.int64], k: int) -> int:
    return int((gaps >> k).sum()) + gaps.size * (k + 1)


def _require(good: bool, what: str) -> None:
    if not good:
        raise InputError(f"the positions cannot be read: {what}")
