"""The norm-ordered walk in torch: for machines without a compiler, and for tensors on other devices."""

from __future__ import annotations

import math

import torch

from regraft import positions
from regraft.search.best import fill, keep, ordered
from regraft.search.protocol import Found, Query

TILE = 1 << 18  # products computed at a time
SEED = 4  # the first tile holds so many times k products


def walk(query: Query) -> Found:
    """The k best, one tile of products after another; the same as the compiled walk up to rounding."""
    if query.k == 0:
        return _Walk(query, 0.0).found()
    if query.metric == "l2":
        return _Walk(query, -math.inf).run().found()
    found = _Walk(query, 0.0).run().found()
    if query.metric == "ip" and found.index.numel() < query.k:  # zero and negative products are needed too
        return _Walk(query, -math.inf).run().found()
    return fill(found, query.k, query.exclude)


class _Walk:
    """Rows and columns in order of their norms (falling; rising for ``l2``), the hits so far, and the
    ``threshold`` that a key must reach; at the ``floor`` it must lie above."""

    def __init__(self, query: Query, floor: float) -> None:
        self.query, self.floor, self.threshold = query, floor, floor
        falling = query.metric != "l2"
        row_norms, self.row_order = query.row_norms.sort(descending=falling, stable=True)
        column_norms, self.column_order = query.column_norms.sort(descending=falling, stable=True)
        self.rows, self.columns = query.rows[self.row_order], query.columns[self.column_order]
        self.row_norms, self.column_norms = row_norms.double().cpu(), column_norms.double().cpu()
        self.row_squares, self.column_squares = row_norms.square(), column_norms.square()
        device = query.rows.device
        self.keys = [torch.empty(0, device=device)]
        self.index = [torch.empty(0, dtype=torch.int64, device=device)]
        self.products = [torch.empty(0, device=device)]
        self.hits = 0

    def run(self) -> _Walk:
        self._seed()
        width = self.query.width
        row = 0
        while row < self.rows.shape[0]:
            low, high = self._window(row, row + 1)
            if high <= low and self.query.metric != "l2":
                break  # no later row reaches further
            count = max(TILE // max(high - low, 1), 1)
            low, high = self._window(row, min(row + count, self.rows.shape[0]))
            step = min(max(TILE // count, 1), width)
            for column in range(low, high, step):
                self._collect(slice(row, row + count), slice(column, min(column + step, high)))
            row += count
        return self

    def found(self) -> Found:
        self._compact()
        return ordered(self.index[0], self.products[0])

    def _seed(self) -> None:
        """Raise the threshold by the products of the largest norms; the hits themselves come again."""
        side = min(math.isqrt(SEED * self.query.k) + 1, math.isqrt(8 * TILE))
        self._collect(slice(0, side), slice(0, side))
        self._compact()
        for hits in (self.keys, self.index, self.products):
            hits[:] = [hits[0][:0]]
        self.hits = 0
        # in a tile of another shape a product is summed in another order, and may come out a little smaller
        row, column = (
            float(norms.max()) if norms.numel() else 0.0 for norms in (self.row_norms, self.column_norms)
        )
        scale = 4 * (row + column) ** 2 if self.query.metric == "l2" else 2 * row * column
        self.threshold = max(self.floor, self.threshold - self.query.slack * scale)

    def _window(self, first: int, last: int) -> tuple[int, int]:
        """The columns that can reach the threshold with rows first ... last - 1, by Cauchy and Schwarz:
        ``|<r, c>| <= |r| |c|`` and ``||r - c|| >= | |r| - |c| |``."""
        norms = self.row_norms[first:last]
        largest, slack = float(norms.max()), self.query.slack
        if self.query.metric == "l2":
            if self.threshold == -math.inf:
                return 0, self.query.width
            smallest, furthest = float(norms.min()), float(self.column_norms[-1])
            reach = math.sqrt(-self.threshold + 4 * slack * (largest + furthest) ** 2)
            ends = torch.tensor([smallest - reach, largest + reach], dtype=torch.float64)
            low = int(torch.searchsorted(self.column_norms, ends[:1]))
            return low, int(torch.searchsorted(self.column_norms, ends[1:], right=True))
        if self.threshold < 0:
            return 0, self.query.width
        bounds = self.column_norms * (largest * (1 + slack))
        reached = bounds >= self.threshold if self.threshold > self.floor else bounds > self.floor
        return 0, int(reached.sum())

    def _collect(self, rows: slice, columns: slice) -> None:
        products = self.rows[rows] @ self.columns[columns].T
        if self.query.metric == "abs":
            keys = products.abs()
        elif self.query.metric == "ip":
            keys = products
        else:
            squares = self.row_squares[rows, None] + self.column_squares[columns]
            keys = (2 * products - squares).clamp_(max=0)
        flat = keys.view(-1)
        at = (
            (flat >= self.threshold if self.threshold > self.floor else flat > self.floor)
            .nonzero()
            .squeeze(1)
        )
        if at.numel() == 0:
            return
        wide = products.shape[1]
        row, column = self.row_order[rows][at // wide], self.column_order[columns][at % wide]
        index = row * self.query.width + column
        free = ~positions.contains(self.query.exclude, index)
        index, at = index[free], at[free]
        self.keys.append(flat[at])
        self.index.append(index)
        self.products.append(products.view(-1)[at])
        self.hits += index.numel()
        if self.hits > 2 * self.query.k + TILE // 32:
            self._compact()

    def _compact(self) -> None:
        keys, index, products = torch.cat(self.keys), torch.cat(self.index), torch.cat(self.products)
        kept = keep(keys, index, self.query.k)
        self.keys, self.index, self.products = [keys[kept]], [index[kept]], [products[kept]]
        self.hits = kept.numel()
        if self.hits == self.query.k and self.hits > 0:
            self.threshold = float(self.keys[0].min())
