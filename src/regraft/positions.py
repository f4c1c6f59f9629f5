"""Algebra on sorted positions.

A set of connections is a one-dimensional int64 tensor of flat row-major positions, strictly increasing.
All operations are O(n log n) or better in the number of positions; none allocates the dense size, except
sampling from a nearly full set, whose inactive positions are then few by definition.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from regraft.errors import InputError


def numel(shape: Sequence[int]) -> int:
    """Number of positions in a weight of ``shape``.

    >>> numel((3, 4))
    12
    """
    return math.prod(shape)


def check(index: Tensor, size: int, name: str = "index") -> Tensor:
    """``index`` as an int64 vector, after checking that it is strictly increasing and within [0, size).

    This is the door: positions from files and users pass through it before anything computes with them.

    Raises:
        InputError: not a vector of integers, unsorted, duplicated, or out of range.
    """
    if not isinstance(index, Tensor):  # users bring lists and arrays
        raise InputError(f"{name} is a {type(index).__name__}, but must be a tensor of integer positions")
    if index.ndim != 1 or index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise InputError(
            f"{name} has shape {tuple(index.shape)} and type {index.dtype}, "
            "but must be a one-dimensional tensor of integer positions"
        )
    index = index.long()
    if index.numel() == 0 or index.is_meta:  # nothing to look at
        return index
    if index.numel() > 1 and not bool((index[1:] > index[:-1]).all()):
        where = int((index[1:] <= index[:-1]).nonzero()[0, 0])
        raise InputError(
            f"{name} is not strictly increasing at entry {where + 1} "
            f"({int(index[where])} then {int(index[where + 1])}): sort the positions and drop duplicates"
        )
    low, high = int(index[0]), int(index[-1])
    if low < 0 or high >= size:
        bad = low if low < 0 else high
        raise InputError(f"{name} holds the position {bad}, but positions must be in [0, {size})")
    return index


def union(a: Tensor, b: Tensor) -> Tensor:
    """Sorted union.

    >>> union(torch.tensor([1, 4]), torch.tensor([0, 4, 9])).tolist()
    [0, 1, 4, 9]
    """
    merged: Tensor = torch.unique(torch.cat([a, b]))
    return merged


def contains(a: Tensor, queries: Tensor) -> Tensor:
    """For each query, whether it is in the sorted set ``a`` (bool tensor).

    >>> contains(torch.tensor([1, 4, 7]), torch.tensor([0, 4])).tolist()
    [False, True]
    """
    if a.numel() == 0:
        return torch.zeros_like(queries, dtype=torch.bool)
    at = torch.searchsorted(a, queries).clamp_(max=a.numel() - 1)
    found: Tensor = a[at] == queries
    return found


def intersection(a: Tensor, b: Tensor) -> Tensor:
    """Sorted intersection.

    >>> intersection(torch.tensor([1, 4]), torch.tensor([0, 4, 9])).tolist()
    [4]
    """
    return a[contains(b, a)]


def difference(a: Tensor, b: Tensor) -> Tensor:
    """Sorted positions of ``a`` that are not in ``b``.

    >>> difference(torch.tensor([1, 4]), torch.tensor([0, 4, 9])).tolist()
    [1]
    """
    return a[~contains(b, a)]


def nth_absent(active: Tensor, ranks: Tensor) -> Tensor:
    """The positions whose rank among the positions *not* in ``active`` is ``ranks`` (any order kept).

    Position p is the rank-th absent one when rank = p - (number of active positions below p); ``gaps`` is
    that count read at the active positions, so a binary search finds p without listing the absent ones.

    >>> nth_absent(torch.tensor([0, 2, 3]), torch.tensor([0, 1, 2])).tolist()
    [1, 4, 5]
    """
    gaps = active - torch.arange(active.numel(), device=active.device)
    return ranks + torch.searchsorted(gaps, ranks, right=True)


def sample_ranks(population: int, k: int, generator: torch.Generator | None = None) -> Tensor:
    """``k`` distinct integers, uniform in [0, population), sorted, in O(k) memory (or O(population) when
    k is more than a quarter of it).

    Rejection draws uniform integers and keeps the first k distinct ones in order of their drawing; by
    symmetry every k-subset is equally likely.

    Raises:
        InputError: k is negative or larger than the population.
    """
    if not 0 <= k <= population:
        raise InputError(f"cannot draw {k} distinct positions out of {population}")
    device = generator.device if generator is not None else torch.device("cpu")
    if k == 0:
        return torch.empty(0, dtype=torch.int64, device=device)
    if 4 * k >= population:
        chosen = torch.randperm(population, generator=generator, device=device)[:k]
        return chosen.sort().values
    drawn = torch.empty(0, dtype=torch.int64, device=device)
    while True:
        more = torch.randint(
            population, (k - drawn.numel() + 16 + k // 4,), generator=generator, device=device
        )
        drawn = _first_occurrences(torch.cat([drawn, more]))
        if drawn.numel() >= k:
            return drawn[:k].sort().values


def _first_occurrences(x: Tensor) -> Tensor:
    """Distinct values of ``x`` in order of first occurrence."""
    ordered, order = torch.sort(x, stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return x[order[first].sort().values]


def sample_absent(active: Tensor, size: int, k: int, generator: torch.Generator | None = None) -> Tensor:
    """``k`` distinct positions in [0, size) that are not in ``active``, uniform over all such sets, sorted.

    Raises:
        InputError: fewer than k positions are absent.
    """
    absent = size - active.numel()
    if k > absent:
        raise InputError(
            f"cannot grow {k} connections: only {absent} of {size} positions are inactive; grow fewer"
        )
    ranks = sample_ranks(absent, k, generator).to(active.device)
    return nth_absent(active, ranks)


def sample(size: int, k: int, generator: torch.Generator | None = None) -> Tensor:
    """``k`` distinct positions in [0, size), uniform, sorted.

    >>> sample(10, 10).tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    return sample_ranks(size, k, generator)


def sample_rows(rows: int, cols: int, k: int, generator: torch.Generator | None = None) -> Tensor:
    """``k`` distinct positions in each row of a [rows, cols] matrix, uniform, as sorted flat positions
    [rows * k]; O(rows * k) memory.

    Robert Floyd's algorithm in all rows at once (Bentley and Floyd 1987, "A sample of brilliance"): draw from
    the first j + 1 columns for j = cols - k ... cols - 1, and take column j where the draw was there already.

    >>> sample_rows(2, 3, 3).tolist()
    [0, 1, 2, 3, 4, 5]

    Raises:
        InputError: k is not in [1, cols].
    """
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= cols:
        raise InputError(f"fan_in is {k!r}, but must be a whole number in [1, {cols}], the number of inputs")
    device = generator.device if generator is not None else torch.device("cpu")
    chosen = torch.empty((k, rows), dtype=torch.int64, device=device)
    for i, last in enumerate(range(cols - k, cols)):
        drawn = torch.randint(last + 1, (rows,), generator=generator, device=device)
        chosen[i] = torch.where((chosen[:i] == drawn).any(0), last, drawn)
    ordered = chosen.t().sort(1).values
    return (ordered + torch.arange(rows, device=device)[:, None] * cols).flatten()
