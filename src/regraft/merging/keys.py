"""Random numbers that belong to a position, not to a moment.

A number is a hash of (seed, weight name, network, position). So blocks of any size, networks that arrive one
by one, and files instead of models all see the same numbers, and nothing but the seed has to be saved.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def _signed(n: int) -> int:
    """The int64 with the same bits."""
    n &= 2**64 - 1
    return n - 2**64 if n >= 2**63 else n


# constants of splitmix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators")
_GAMMA, _C1, _C2 = (_signed(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def draw_seed(generator: torch.Generator | None) -> int:
    """A seed from ``generator``; 0 without one, so that a call without one always gives the same result."""
    if generator is None:
        return 0
    return int(torch.randint(2**53, (), generator=generator, device=generator.device))


def base(seed: int, name: str, network: int = -1) -> int:
    """The start of the stream of numbers of one weight of one network (-1: of the merged one)."""
    digest = hashlib.sha256(f"{seed}/{network}/{name}".encode()).digest()
    return _signed(int.from_bytes(digest[:8], "little"))


def hashed(start: int, positions: Tensor) -> Tensor:
    """A pseudorandom int64 in [0, 2^53) for each position (int64 [m]).

    >>> hashed(base(0, "w"), torch.tensor([3, 7])).tolist() == [
    ...     hashed(base(0, "w"), torch.tensor([p])).item() for p in (3, 7)]
    True
    """
    x = positions * _GAMMA + start
    x = (x ^ (x >> 30 & 2**34 - 1)) * _C1
    x = (x ^ (x >> 27 & 2**37 - 1)) * _C2
    return (x ^ (x >> 31 & 2**33 - 1)) >> 11 & 2**53 - 1


def uniform(start: int, positions: Tensor) -> Tensor:
    """A pseudorandom float64 in [0, 1) for each position."""
    return hashed(start, positions).double() * 2.0**-53
