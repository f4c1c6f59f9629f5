"""The search as the thesis does it: an index of the columns, and for each row its most similar columns."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regraft import positions
from regraft.errors import InputError
from regraft.search.best import keep, ordered
from regraft.search.compiled import products_at
from regraft.search.norm_ordered import exact
from regraft.search.protocol import Found, Query

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Nearest = Callable[[Floats, int], Integers]
"""``(queries [q, B], n) -> columns [q, n]``, the most similar ones of each query; -1 where there is none."""

PIECE = 1 << 20  # neighbours looked at together


def check_k_similar(k_similar: float) -> None:
    """Refuse what is not a fraction of the columns.

    Raises:
        InputError: not in (0, 1].
    """
    if isinstance(k_similar, bool) or not isinstance(k_similar, float | int) or not 0 < k_similar <= 1:
        raise InputError(
            f"k_similar is {k_similar!r}, but must be in (0, 1]: 0.15 asks for the 15 % most similar columns "
            "of each row"
        )


def by_neighbours(query: Query, nearest: Nearest, k_similar: float) -> Found:
    """The best k of each row's ``ceil(k_similar * n_in)`` most similar columns (thesis 4, figure 3.1), their
    products computed exactly.

    For ``abs`` each row asks twice, for itself and its negative. A row cannot give more than its neighbours,
    so the best positions are missed where they are concentrated in few rows. Where all rows together have
    fewer than k inactive neighbours, the rest is found by the exact search.
    """
    each = math.ceil(k_similar * query.width)
    rows = query.rows.cpu().numpy()
    signs = (1, -1) if query.metric == "abs" else (1,)
    step = max(1, PIECE // (each * len(signs)))
    index = torch.empty(0, dtype=torch.int64)
    keys, products = torch.empty(0), torch.empty(0)
    for start in range(0, rows.shape[0], step):
        queries = np.ascontiguousarray(rows[start : start + step])
        found = [_positions(nearest(queries * np.float32(sign), each), start, query.width) for sign in signs]
        new = positions.difference(_distinct(torch.cat(found)), query.exclude.cpu())
        index = torch.cat([index, new])
        more = products_at(query, new)
        products = torch.cat([products, more])
        keys = torch.cat([keys, keys_of(query, new, more)])
        kept = keep(keys, index, query.k)
        index, products, keys = index[kept], products[kept], keys[kept]
    index, products = index.to(query.rows.device), products.to(query.rows.device)
    missing = query.k - index.numel()
    if missing > 0:
        others = positions.union(index, query.exclude)
        rest = exact(query.rows, query.columns, missing, others, metric=query.metric)
        index, products = torch.cat([index, rest.index]), torch.cat([products, rest.products])
    return ordered(index, products)


def _positions(neighbours: Integers, start: int, width: int) -> Tensor:
    row = np.arange(start, start + neighbours.shape[0], dtype=np.int64)[:, None]
    return torch.from_numpy((row * width + neighbours)[neighbours >= 0])


def _distinct(index: Tensor) -> Tensor:
    found: Tensor = torch.unique(index)
    return found


def keys_of(query: Query, index: Tensor, products: Tensor) -> Tensor:
    """What the metric ranks positions by: larger is better."""
    if query.metric == "abs":
        return products.abs()
    if query.metric == "ip":
        return products
    row, column = query.row_norms.cpu()[index // query.width], query.column_norms.cpu()[index % query.width]
    return 2 * products - row.square() - column.square()
