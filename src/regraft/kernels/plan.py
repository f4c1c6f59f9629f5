"""``Plan``: both traversals of a sparse matrix over its one order of values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from regraft import positions
from regraft.errors import InputError
from regraft.kernels import native
from regraft.weight import SparseWeight

INT32_MAX = 2**31 - 1
PANEL_ROWS = 1400  # about 600 KB of gathered activations at a batch of 100: measured best
MIN_PER_COLUMN = 8


@dataclass(frozen=True, eq=False)
class Plan:
    """How to walk a sparse matrix [rows, cols] by rows and by columns.

    The walk by columns goes through ``panels`` of rows one after the other (rows * p // panels is where panel
    p starts), so that what it gathers stays in cache.

    Values stay in the order of the positions, row by row; the walk by columns reaches them through ``perm``.

    Attributes:
        source: the positions that the plan was made from, and their version then.
        parts: rowptr int64 [rows + 1], where each row starts; col int32 [nnz], column of each value; colptr
            int64 [panels * cols + 1], where each column of each panel starts in column order; row int32
            [nnz], row of each entry in column order; perm int32 [nnz], its place in the order of values.
        at: the addresses of the parts; none on another device than the CPU, where nothing reads them.
    """

    rows: int
    cols: int
    nnz: int
    panels: int
    source: Tensor
    version: int
    parts: tuple[Tensor, ...]
    at: tuple[int, ...]

    @property
    def rowptr(self) -> Tensor:
        """Where each row starts, int64 [rows + 1]."""
        return self.parts[0]

    @property
    def col(self) -> Tensor:
        """Column of each value, int32 [nnz]."""
        return self.parts[1]

    @property
    def colptr(self) -> Tensor:
        """Where each column of each panel starts in column order, int64 [panels * cols + 1]."""
        return self.parts[2]

    @property
    def row(self) -> Tensor:
        """Row of each entry in column order, int32 [nnz]."""
        return self.parts[3]

    @property
    def perm(self) -> Tensor:
        """Place of each entry of column order among the values, int32 [nnz]."""
        return self.parts[4]

    @cached_property
    def rowptr32(self) -> Tensor:
        """Where each row starts, int32 [rows + 1]."""
        return self.rowptr.int()

    @cached_property
    def by_column(self) -> tuple[Tensor, Tensor, Tensor]:
        """The walk by columns without panels, all int32: where each column starts [cols + 1], row of each
        entry [nnz], its place in the order of values [nnz]."""
        if self.panels == 1:
            return self.colptr.int(), self.row, self.perm
        sizes = ((self.cols + 1, torch.int64), (self.nnz, torch.int32), (self.nnz, torch.int32))
        colptr, row, perm = (torch.empty(n, dtype=dtype) for n, dtype in sizes)
        unused = torch.empty_like(self.rowptr), torch.empty_like(self.col)
        _build_in_torch(self.source, self.rows, self.cols, 1, (*unused, colptr, row, perm))
        return colptr.int(), row, perm

    def fits(self, index: Tensor) -> bool:
        """Whether the plan still describes ``index``: the same tensor, not written to since."""
        return self.source is index and self.version == index._version


def empty(x: Tensor, features: int, feature_major: bool) -> Tensor:
    """Room for activations [batch, features] of the batch and the type of ``x``, laid out as asked for."""
    batch = x.shape[0]
    # no transposed view: operations in place after the layer need a tensor of its own
    stride = (1, max(batch, 1)) if feature_major else (max(features, 1), 1)
    return x.new_empty_strided((batch, features), stride)


def build(index: Tensor, rows: int, cols: int) -> Plan:
    """The plan of the sorted flat positions ``index`` (int64 [nnz]) of a [rows, cols] matrix.

    >>> plan = build(torch.tensor([0, 2, 4]), 2, 3)
    >>> plan.col.tolist(), plan.row.tolist(), plan.perm.tolist()
    ([0, 2, 1], [0, 1, 0], [0, 2, 1])

    Raises:
        InputError: positions not strictly increasing within [0, rows * cols), or a matrix beyond int32.
    """
    nnz = index.numel()
    if max(rows, cols, nnz) > INT32_MAX:
        raise InputError(
            f"a [{rows}, {cols}] matrix with {nnz} values is beyond the compiled kernels (int32)"
        )
    flat = index
    if index.dtype != torch.int64 or index.ndim != 1:  # compiled code reads 64-bit numbers
        flat = positions.check(index, rows * cols)
    here = index.device.type == "cpu"
    panels = _panels(rows, cols, nnz) if here else 1
    sizes = ((rows + 1, torch.int64), (nnz, torch.int32), (panels * cols + 1, torch.int64)) + (
        (nnz, torch.int32),
    ) * 2
    parts = tuple(torch.empty(n, dtype=dtype, device=index.device) for n, dtype in sizes)
    if native.available() and here:
        flat = flat.contiguous()
        to = [t.data_ptr() for t in parts]
        if not native.module().plan(flat.data_ptr(), nnz, rows, cols, panels, *to):
            _refuse(index, rows * cols)
    else:
        _build_in_torch(positions.check(flat, rows * cols), rows, cols, panels, parts)
    at = tuple(t.data_ptr() for t in parts) if here else ()
    return Plan(rows, cols, nnz, panels, index, index._version, parts, at)


def _panels(rows: int, cols: int, nnz: int) -> int:
    """Panels for the walk by columns: few enough that a column's entries in one are worth its overhead."""
    return max(1, min(-(-rows // PANEL_ROWS), nnz // (MIN_PER_COLUMN * max(cols, 1))))


def of(weight: SparseWeight) -> Plan:
    """The plan of a two-dimensional weight, built once for each topology."""
    plan = cast(Plan | None, weight.cache.get("plan"))
    if plan is None or not plan.fits(weight.index):
        rows, cols = weight.shape
        plan = build(weight.index, rows, cols)
        weight.cache["plan"] = plan
    return plan


def _refuse(index: Tensor, size: int) -> None:
    positions.check(index, size)
    raise InputError("index is not a list of positions")  # pragma: no cover


def _build_in_torch(index: Tensor, rows: int, cols: int, panels: int, parts: tuple[Tensor, ...]) -> None:
    rowptr, col, colptr, row, perm = parts
    r = torch.div(index, max(cols, 1), rounding_mode="floor")
    c = index - r * cols
    device = index.device
    bounds = torch.arange(1, panels, device=device) * rows // panels
    place = torch.bucketize(r, bounds, right=True) * cols + c
    order = torch.sort(place, stable=True).indices
    rowptr.copy_(torch.searchsorted(r, torch.arange(rows + 1, device=device)))
    col.copy_(c)
    colptr.copy_(torch.searchsorted(place[order], torch.arange(panels * cols + 1, device=device)))
    row.copy_(r[order])
    perm.copy_(order)
