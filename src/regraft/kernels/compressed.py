"""The compressed computation of a linear layer: compiled kernels under autograd."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from regraft.kernels import native
from regraft.kernels.plan import Plan
from regraft.weight import SparseWeight


def is_feature_major(x: Tensor) -> bool:
    """Whether the samples of each feature of x [batch, features] lie side by side: what the kernels gather
    from, and what elementwise operations of torch keep."""
    return x.stride(0) == 1 and x.stride(1) != 1


def _empty(x: Tensor, features: int, feature_major: bool) -> Tensor:
    batch = x.shape[0]
    return x.new_empty((features, batch)).t() if feature_major else x.new_empty((batch, features))


def forward(
    x: Tensor, values: Tensor, bias: Tensor | None, plan: Plan, feature_major: bool | None = None
) -> Tensor:
    """x [batch, in] (any strides) -> y [batch, out], feature-major or batch-major; default: as ``x`` is."""
    y = _empty(x, plan.rows, is_feature_major(x) if feature_major is None else feature_major)
    native.module().forward(
        native.is_float64(x.dtype), plan.rows, plan.cols, plan.nnz, plan.at[0], plan.at[1], x.shape[0], 0,
        values.data_ptr(), 0 if bias is None else bias.data_ptr(),
        x.data_ptr(), *x.stride(), y.data_ptr(), *y.stride(),
    )  # fmt: skip
    return y


def backward(
    x: Tensor, values: Tensor, dy: Tensor, plan: Plan, want: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of input [batch, in], values [nnz] and bias [out], where wanted; each row of ``dy`` is
    read once for the first two."""
    batch = x.shape[0]
    dx = _empty(x, plan.cols, is_feature_major(x)) if want[0] else None
    dvalues = x.new_empty(plan.nnz) if want[1] else None
    dbias = x.new_empty(plan.rows) if want[2] else None
    native.module().backward(
        native.is_float64(x.dtype), plan.rows, plan.cols, plan.nnz, plan.panels, *plan.at[2:], batch, 0,
        values.data_ptr(), x.data_ptr(), *x.stride(), dy.data_ptr(), *dy.stride(),
        0 if dx is None else dx.data_ptr(), *((1, 1) if dx is None else dx.stride()),
        0 if dvalues is None else dvalues.data_ptr(), 0 if dbias is None else dbias.data_ptr(),
    )  # fmt: skip
    return dx, dvalues, dbias


class _Linear(torch.autograd.Function):
    """x [batch, in], values [nnz], bias [out] or None -> x W^T + b [batch, out]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, plan: Plan, feature_major: bool | None
    ) -> Tensor:
        ctx.save_for_backward(x, values)
        ctx.plan = plan
        return forward(x, values, bias, plan, feature_major)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        (dy,) = grads
        x, values = ctx.saved_tensors
        want = tuple(ctx.needs_input_grad[:3])
        if torch.is_grad_enabled() or dy.device.type != "cpu" or dy.dtype != x.dtype:
            return *_differentiable(x, values, dy, ctx.plan, want), None, None
        return *backward(x, values, dy, ctx.plan, want), None, None


def _differentiable(
    x: Tensor, values: Tensor, dy: Tensor, plan: Plan, want: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients through differentiable torch operations: the way of ``create_graph=True``."""
    index = plan.source
    w = values.new_zeros(plan.rows * plan.cols).scatter(0, index, values).view(plan.rows, plan.cols)
    return (
        dy @ w if want[0] else None,
        (dy.t() @ x).reshape(-1)[index] if want[1] else None,
        dy.sum(0) if want[2] else None,
    )


def linear(
    x: Tensor, values: Tensor, bias: Tensor | None, plan: Plan, feature_major: bool | None = None
) -> Tensor:
    """x [..., in] -> x W^T + b [..., out] through the compiled kernels; differentiable any number of times.

    ``x``, ``values`` and ``bias`` are of one type, float32 or float64, on the CPU. A result of two dimensions
    is laid out feature-major or batch-major; default: as ``x`` is.
    """
    flat = x if x.ndim == 2 else x.reshape(-1, plan.cols)
    y: Tensor = _Linear.apply(flat, values, bias, plan, feature_major)  # type: ignore[no-untyped-call]
    return y if x.ndim == 2 else y.reshape(*x.shape[:-1], plan.rows)


def full(x: Tensor, weight: SparseWeight, bias: Tensor | None) -> Tensor:
    """The same where every position is active: the values are the dense weight."""
    return F.linear(x, weight.values.view(weight.shape), bias)
