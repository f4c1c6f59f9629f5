"""One seed, several independent streams of random numbers."""

from __future__ import annotations

import hashlib

import torch

from regraft.errors import InputError


def derived(seed: int, purpose: str) -> int:
    """A seed for one purpose: the first 63 bits of SHA-256 of ``seed/purpose``.

    Streams for different purposes are then unrelated, and adding one changes none of the others.

    >>> derived(0, "order") != derived(0, "dropout") != derived(1, "dropout")
    True

    Raises:
        InputError: the seed is not a non-negative integer.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed is {seed!r}, but must be an integer of 0 or more")
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def stream(seed: int, purpose: str) -> torch.Generator:
    """A new CPU generator for one purpose: ``"init"``, ``"topology"``, ``"order"``, ``"evolve"``, ...

    >>> bool(torch.rand(1, generator=stream(0, "init")) == torch.rand(1, generator=stream(0, "init")))
    True
    """
    return torch.Generator().manual_seed(derived(seed, purpose))
