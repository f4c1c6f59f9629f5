"""The k best of what was found, ties decided by position."""

from __future__ import annotations

import torch
from torch import Tensor

from regraft import positions
from regraft.search.protocol import Found


def keep(keys: Tensor, index: Tensor, k: int) -> Tensor:
    """Entries of the k largest ``keys``; of equal keys the ones with the lowest ``index`` are kept.

    >>> keep(torch.tensor([1.0, 3.0, 3.0, 3.0]), torch.tensor([9, 8, 7, 6]), 2).tolist()
    [2, 3]
    """
    if keys.numel() <= k:
        return torch.arange(keys.numel(), device=keys.device)
    if k == 0:
        return torch.empty(0, dtype=torch.int64, device=keys.device)
    last = keys.topk(k, sorted=False).values.min()
    kept = keys > last
    ties = (keys == last).nonzero().squeeze(1)
    missing = k - int(kept.sum())
    if ties.numel() > missing:
        ties = ties[index[ties].argsort()[:missing]]
    kept[ties] = True
    return kept.nonzero().squeeze(1)


def fill(found: Found, k: int, exclude: Tensor) -> Found:
    """``found``, filled up to k with the lowest positions that are neither in it nor excluded; their products
    are zero."""
    missing = k - found.index.numel()
    if missing <= 0:
        return found
    taken = positions.union(found.index, exclude)
    ranks = torch.arange(missing, device=found.index.device)
    more = positions.nth_absent(taken, ranks)
    zeros = torch.zeros(missing, device=found.products.device)
    return ordered(torch.cat([found.index, more]), torch.cat([found.products, zeros]))


def ordered(index: Tensor, products: Tensor) -> Found:
    """Both in order of positions.

    >>> ordered(torch.tensor([4, 1]), torch.tensor([0.5, 2.0])).products.tolist()
    [2.0, 0.5]
    """
    index, order = index.sort()
    return Found(index, products[order])
