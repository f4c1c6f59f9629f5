"""What a search for connections takes and gives back, and the door its input passes through."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from regraft import positions
from regraft.errors import InputError, MismatchError, unknown

Metric = Literal["abs", "ip", "l2"]
METRICS: tuple[Metric, ...] = get_args(Metric)


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found.

    Attributes:
        index: increasing int64 positions i * n_in + j [k].
        products: the inner products <rows_i, columns_j> at them [k], float32, whatever the metric.
    """

    index: Tensor
    products: Tensor


class Search(Protocol):
    """``(rows, columns, k, exclude) -> Found``: the k positions (i, j) outside ``exclude`` with the largest

    - ``abs``: ``|<rows_i, columns_j>|``,
    - ``ip``: ``<rows_i, columns_j>``,
    - ``l2``: ``-||rows_i - columns_j||``.

    With gradients at the outputs of a linear layer as rows [n_out, B] and its inputs as columns [n_in, B], B
    the samples, the product is the gradient of the connection from j to i (thesis 4, chapter 3). Samples of
    several minibatches side by side give the gradient summed over them, without any sum being stored.
    """

    def __call__(
        self, rows: Tensor, columns: Tensor, k: int, exclude: Tensor | None = None, *, metric: Metric = "abs"
    ) -> Found: ...


@dataclass(frozen=True, eq=False)
class Query:
    """A search's input after the door: float32 rows [n_out, B] and columns [n_in, B] on one device, k, and
    increasing positions to leave out."""

    rows: Tensor
    columns: Tensor
    k: int
    exclude: Tensor
    metric: Metric

    @cached_property
    def row_norms(self) -> Tensor:
        """Euclidean norms of the rows."""
        return _norms(self.rows)

    @cached_property
    def column_norms(self) -> Tensor:
        """Euclidean norms of the columns."""
        return _norms(self.columns)

    @property
    def width(self) -> int:
        """Positions in a row."""
        return self.columns.shape[0]

    @property
    def slack(self) -> float:
        """A float32 product of B terms is off by at most this times the product of the norms (Higham 2002,
        "Accuracy and stability of numerical algorithms", section 3.1)."""
        return 1.2e-7 * (self.rows.shape[1] + 8)


@torch.no_grad()
def door(rows: Tensor, columns: Tensor, k: int, exclude: Tensor | None, metric: Metric) -> Query:
    """The checked input of a search.

    Raises:
        MismatchError: rows and columns differ in their number of samples.
        InputError: anything else that no search can use; the sentence names it.
    """
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    for name, matrix in (("rows", rows), ("columns", columns)):
        if matrix.ndim != 2 or not matrix.is_floating_point():
            raise InputError(
                f"{name} have shape {tuple(matrix.shape)} and type {matrix.dtype}, but must be a matrix "
                "[units, samples] of floating-point numbers"
            )
    samples = rows.shape[1]
    if columns.shape[1] != samples:
        raise MismatchError(
            f"rows hold {samples} samples and columns {columns.shape[1]}: pass output gradients and inputs "
            "of the same minibatch"
        )
    if samples == 0:
        raise InputError("rows and columns hold no samples, but inner products need at least one")
    size = rows.shape[0] * columns.shape[0]
    if exclude is None:
        exclude = torch.empty(0, dtype=torch.int64)
    exclude = positions.check(exclude.to(rows.device), size, "exclude")
    _check_k(k, size, exclude.numel())
    rows, columns = rows.detach().float(), columns.detach().to(rows.device).float()
    query = Query(rows, columns, k, exclude, metric)
    row = _largest(query.row_norms, rows, "rows")
    column = _largest(query.column_norms, columns, "columns")
    if max(row, column) ** 2 > 1e37:
        raise InputError(
            f"rows of norm {row:.3g} and columns of norm {column:.3g} have products beyond float32: "
            "scale them down"
        )
    return query


def _check_k(k: int, size: int, excluded: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or k < 0:
        raise InputError(f"k is {k!r}, but must be a number of connections, 0 or more")
    if k > size - excluded:
        raise InputError(
            f"cannot find {k} connections: only {size - excluded} of {size} positions are inactive; "
            "ask for fewer"
        )


def _norms(matrix: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(matrix, dim=1)
    small = norms < 1e-16  # squares of such numbers are lost in float32
    if bool(small.any()):
        norms[small] = torch.linalg.vector_norm(matrix[small], dim=1, dtype=torch.float64).float()
    return norms


def _largest(norms: Tensor, matrix: Tensor, name: str) -> float:
    """The largest norm; finite, or the matrix is refused."""
    most = float(norms.max()) if norms.numel() else 0.0
    if not math.isfinite(most):
        if not bool(matrix.isfinite().all()):
            raise InputError(
                f"{name} hold NaN or infinite numbers: training diverged; lower the learning rate"
            )
        raise InputError(f"{name} have norms beyond float32: scale them down")
    return most
