"""Products of a sparse matrix by the compiled kernels."""

from __future__ import annotations

from torch import Tensor

from regraft.kernels import native
from regraft.kernels.plan import Plan, empty

available = native.available


def forward(x: Tensor, values: Tensor, bias: Tensor | None, plan: Plan, feature_major: bool) -> Tensor:
    """x [batch, in] (any strides) -> y [batch, out], feature-major or batch-major."""
    y = empty(x, plan.rows, feature_major)
    values, bias = values.contiguous(), None if bias is None else bias.contiguous()
    native.module().forward(
        native.is_float64(x.dtype), plan.rows, plan.cols, plan.nnz, plan.at[0], plan.at[1], x.shape[0], 0,
        values.data_ptr(), 0 if bias is None else bias.data_ptr(),
        x.data_ptr(), *x.stride(), y.data_ptr(), *y.stride(),
    )  # fmt: skip
    return y


def backward(
    x: Tensor, values: Tensor, dy: Tensor, plan: Plan, want: tuple[bool, bool, bool], feature_major: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of input [batch, in], values [nnz] and bias [out], where wanted; each row of ``dy`` is
    read once for the first two."""
    batch, values = x.shape[0], values.contiguous()
    dx = empty(x, plan.cols, feature_major) if want[0] else None
    dvalues = x.new_empty(plan.nnz) if want[1] else None
    dbias = x.new_empty(plan.rows) if want[2] else None
    native.module().backward(
        native.is_float64(x.dtype), plan.rows, plan.cols, plan.nnz, plan.panels, *plan.at[2:], batch, 0,
        values.data_ptr(), x.data_ptr(), *x.stride(), dy.data_ptr(), *dy.stride(),
        0 if dx is None else dx.data_ptr(), *((1, 1) if dx is None else dx.stride()),
        0 if dvalues is None else dvalues.data_ptr(), 0 if dbias is None else dbias.data_ptr(),
    )  # fmt: skip
    return dx, dvalues, dbias
