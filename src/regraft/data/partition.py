"""Choosing samples: stratified splits and counts per class, each from a generator of its own."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from regraft.errors import InputError


def generator_for(seed: int, *purpose: object) -> torch.Generator:
    """A generator that depends on the seed and on what it is for, never on what was drawn before.

    >>> a, b = generator_for(0, "test"), generator_for(0, "test")
    >>> torch.equal(torch.randperm(9, generator=a), torch.randperm(9, generator=b))
    True
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise InputError(f"seed is {seed!r}, but must be a whole number")
    digest = hashlib.blake2b(repr((seed, *purpose)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def check_fraction(fraction: float, name: str = "fraction") -> float:
    """``fraction`` as a float in (0, 1), else an error."""
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0.0 < fraction < 1.0:
        raise InputError(f"{name} is {fraction!r}, but must be in (0, 1): 0.1 takes a tenth of the samples")
    return float(fraction)


def stratified(y: Tensor, fraction: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Positions of the rest and of the part of ``ceil(fraction * n)`` samples taken off, each ascending.

    Each class gives its share rounded down, and the remaining samples come from the classes with the largest
    remainders (Hamilton's method; ties at random), so every class is within one sample of its share. A class
    keeps at least one sample in the rest; where that binds, fewer samples are taken off.

    Args:
        y: labels [n], int64.
        fraction: share to take off, in (0, 1).
        generator: where randomness comes from.

    >>> rest, part = stratified(torch.tensor([0, 0, 0, 0, 1, 1]), 0.5, torch.Generator().manual_seed(0))
    >>> len(rest), len(part)
    (3, 3)

    Raises:
        InputError: ``fraction`` not in (0, 1), or one side would be empty.
    """
    fraction = check_fraction(fraction)
    y = y.cpu()
    # 1e-9: 0.1 * 30 may come out a hair above 3
    count = math.ceil(fraction * len(y) - 1e-9)
    if not 0 < count < len(y):
        raise InputError(
            f"{len(y)} samples are too few to take off the fraction {fraction}: use more samples"
        )
    sizes = torch.bincount(y)
    ideal = sizes.double() * count / len(y)
    take = ideal.floor().long()
    tie_break = torch.rand(len(sizes), generator=generator, dtype=torch.float64) * 1e-9
    for c in torch.argsort(ideal - take + tie_break, descending=True).tolist():
        if int(take.sum()) < count and take[c] < sizes[c] - 1:
            take[c] += 1
    chosen = torch.zeros(len(y), dtype=torch.bool)
    for c, k in enumerate(take.tolist()):
        members = (y == c).nonzero().flatten()
        chosen[members[torch.randperm(len(members), generator=generator)[:k]]] = True
    if not chosen.any():
        raise InputError(
            f"{len(y)} samples in {int((sizes > 0).sum())} classes are too few to take off the fraction "
            f"{fraction} of each class: use more samples"
        )
    return (~chosen).nonzero().flatten(), chosen.nonzero().flatten()


def of_class(y: Tensor, label: int, count: int | None, seed: int, part: str, title: str) -> Tensor:
    """Ascending positions of ``count`` samples of one class (None: all of them).

    Which samples depends on the seed, the part and the class alone: not on the other classes, and fewer
    samples are a subset of more.

    Raises:
        InputError: the class has fewer samples.
    """
    members = (y == label).nonzero().flatten()
    if count is None:
        return members
    if count > len(members):
        raise InputError(f"{title} has {len(members)} {part} samples, fewer than the {count} asked for")
    order = torch.randperm(len(members), generator=generator_for(seed, part, label))
    return members[order[:count]].sort().values
