"""Search in a low-rank picture of the products: for averages over many samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regraft.errors import InputError
from regraft.search.best import keep, ordered
from regraft.search.compiled import products_at
from regraft.search.neighbours import keys_of
from regraft.search.norm_ordered import exact
from regraft.search.protocol import Found, Metric, Query, door


@dataclass(frozen=True)
class Svd:
    """Search among products of low rank, the candidates ranked by their true products.

    The n_out x n_in products P = R C^T of B samples are mostly of low rank. With Q an orthonormal basis of
    P Omega, Omega random [n_in, rank + oversample], P is close to Q (Q^T P), which is the product of rows Q
    and columns C R^T Q with rank + oversample numbers each rather than B (Halko, Martinsson and Tropp 2011,
    algorithm 4.1). The exact search finds ``candidates * k`` positions there, and of them the k best by the
    true products are kept. No array of n_out x n_in numbers arises.

    Args:
        rank: singular directions to keep.
        oversample: directions more, which make the picture safer.
        candidates: candidates for each position that is wanted, 1 or more.
        seed: of Omega.

    >>> rows, columns = torch.eye(3), torch.tensor([[1.0, 5.0, 0.0], [0.0, 1.0, 9.0]])
    >>> Svd()(rows, columns, 2).index.tolist()
    [2, 5]

    Raises:
        InputError: a rank below 1, an oversample below 0, candidates below 1.
    """

    rank: int = 16
    oversample: int = 8
    candidates: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (("rank", self.rank, 1), ("oversample", self.oversample, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name} is {value!r}, but must be an integer of {least} or more")
        if not isinstance(self.candidates, float | int) or not 1 <= self.candidates < 1e6:
            raise InputError(f"candidates is {self.candidates!r}, but must be 1 or more")

    @torch.no_grad()
    def __call__(
        self, rows: Tensor, columns: Tensor, k: int, exclude: Tensor | None = None, *, metric: Metric = "abs"
    ) -> Found:
        query = door(rows, columns, k, exclude, metric)
        width = self.rank + self.oversample
        if width >= min(query.rows.shape[0], query.width, query.rows.shape[1]):
            return exact(rows, columns, k, exclude, metric=metric)  # nothing would become smaller
        free = query.rows.shape[0] * query.width - query.exclude.numel()
        wanted = min(round(self.candidates * k), free)
        left, right = self._picture(query, width)
        near = exact(left, right, wanted, query.exclude, metric="abs" if metric == "abs" else "ip")
        products = products_at(query, near.index)
        kept = keep(keys_of(query, near.index, products), near.index, k)
        return ordered(near.index[kept], products[kept])

    def _picture(self, query: Query, width: int) -> tuple[Tensor, Tensor]:
        """Rows and columns of ``width`` numbers with nearly the same products; for ``l2`` with two more, so
        that the product is minus the squared distance."""
        generator = torch.Generator().manual_seed(self.seed)
        omega = torch.randn(query.width, width, generator=generator).to(query.rows.device)
        basis = torch.linalg.qr(query.rows @ (query.columns.T @ omega)).Q
        right = query.columns @ (query.rows.T @ basis)
        if query.metric != "l2":
            return basis, right
        row, column = query.row_norms.square()[:, None], query.column_norms.square()[:, None]
        one = torch.ones_like(row)
        left = torch.cat([2 * basis, -row, -one], dim=1)
        return left, torch.cat([right, torch.ones_like(column), column], dim=1)
