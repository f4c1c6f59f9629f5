"""Products of a sparse matrix by loops that numba compiles: where no C compiler was, ``regraft[numba]``."""

from __future__ import annotations

import importlib.util
from functools import cache
from types import ModuleType

from torch import Tensor

from regraft.kernels.plan import Plan, empty


@cache
def available() -> bool:
    """Whether numba is installed; it is imported at the first product."""
    return importlib.util.find_spec("numba") is not None


@cache
def _loops() -> ModuleType:
    from regraft.kernels import numba_loops

    return numba_loops


def forward(x: Tensor, values: Tensor, bias: Tensor | None, plan: Plan, feature_major: bool) -> Tensor:
    """x [batch, in] (any strides) -> y [batch, out], feature-major or batch-major."""
    y = empty(x, plan.rows, True)
    b = x.new_zeros(plan.rows) if bias is None else bias
    _loops().forward(*_arrays(plan.rowptr, plan.col, values, x.t(), b, y.t()))
    return y if feature_major else y.contiguous()


def backward(
    x: Tensor, values: Tensor, dy: Tensor, plan: Plan, want: tuple[bool, bool, bool], feature_major: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of input [batch, in], values [nnz] and bias [out], where wanted; each row of ``dy`` is
    read once for the first two."""
    dx = x.new_zeros((plan.cols if want[0] else 1, x.shape[0]))
    dvalues = x.new_zeros(plan.nnz if want[1] else 0)
    if want[0] or want[1]:
        parts = (plan.colptr, plan.row, plan.perm, values, x.t(), dy.t(), dx, dvalues)
        _loops().backward(plan.panels, plan.cols, want[0], want[1], *_arrays(*parts))
    return (
        (dx.t() if feature_major else dx.t().contiguous()) if want[0] else None,
        dvalues if want[1] else None,
        dy.sum(0) if want[2] else None,
    )


def _arrays(*tensors: Tensor) -> list[object]:
    return [t.detach().contiguous().numpy() for t in tensors]
