"""The norm-ordered search with a first pass in bfloat16."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from regraft.errors import InputError
from regraft.search import compiled
from regraft.search.best import keep, ordered
from regraft.search.neighbours import keys_of
from regraft.search.norm_ordered import exact
from regraft.search.protocol import Found, Metric, door


@dataclass(frozen=True)
class Bfloat16:
    """The exact walk over an input rounded to bfloat16, the candidates ranked by their true products.

    Processors with AVX512-BF16 multiply twice as many of those numbers, which pays where many samples are
    searched (minibatches side by side). Rounding may lose positions next to the k-th; ``candidates`` above 1
    bring nearly all of them back. On other machines this is the exact search.

    Args:
        candidates: candidates for each position that is wanted, 1 or more.

    >>> Bfloat16()(torch.eye(2), torch.tensor([[3.0, 0.0], [0.0, 5.0]]), 1).index.tolist()
    [3]

    Raises:
        InputError: candidates below 1.
    """

    candidates: float = 1.2

    def __post_init__(self) -> None:
        if not isinstance(self.candidates, float | int) or not 1 <= self.candidates < 1e6:
            raise InputError(f"candidates is {self.candidates!r}, but must be 1 or more")

    @torch.no_grad()
    def __call__(
        self, rows: Tensor, columns: Tensor, k: int, exclude: Tensor | None = None, *, metric: Metric = "abs"
    ) -> Found:
        query = door(rows, columns, k, exclude, metric)
        if not (compiled.fits(query) and compiled.has_bfloat16()):
            return exact(rows, columns, k, exclude, metric=metric)
        free = query.rows.shape[0] * query.width - query.exclude.numel()
        wanted = min(math.ceil(self.candidates * k), free)
        near = compiled.walk(replace(query, k=wanted), rounded=True)
        products = compiled.products_at(query, near.index)
        kept = keep(keys_of(query, near.index, products), near.index, k)
        return ordered(near.index[kept], products[kept])
