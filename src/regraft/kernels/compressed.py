"""The compressed computation of a linear layer: a product over the active connections, under autograd."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from regraft.kernels import backends
from regraft.kernels.plan import Plan
from regraft.weight import SparseWeight


def is_feature_major(x: Tensor) -> bool:
    """Whether the samples of each feature of x [batch, features] lie side by side: what the kernels gather
    from, and what elementwise operations of torch keep."""
    return x.stride(0) == 1 and x.stride(1) != 1


class _Linear(torch.autograd.Function):
    """x [batch, in], values [nnz], bias [out] or None -> x W^T + b [batch, out]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, plan: Plan, feature_major: bool | None,
        backend: str,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(x, values)
        ctx.plan, ctx.backend = plan, backends.serving(backend, x.device.type)
        as_wanted = is_feature_major(x) if feature_major is None else feature_major
        y: Tensor = ctx.backend.forward(x, values, bias, plan, as_wanted)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dy = grads[0].resolve_neg()  # its address must say all about it
        x, values = ctx.saved_tensors
        want = tuple(ctx.needs_input_grad[:3])
        if torch.is_grad_enabled() or dy.device != x.device or dy.dtype != x.dtype:
            return *_differentiable(x, values, dy, ctx.plan, want), None, None, None
        return *ctx.backend.backward(x, values, dy, ctx.plan, want, is_feature_major(x)), None, None, None


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
    x: Tensor,
    values: Tensor,
    bias: Tensor | None,
    plan: Plan,
    feature_major: bool | None = None,
    backend: str | None = None,
) -> Tensor:
    """x [..., in] -> x W^T + b [..., out] over the active connections; differentiable any number of times.

    ``x``, ``values`` and ``bias`` are of one type, float32 or float64, on one device, as the plan is. A
    result of two dimensions is laid out feature-major or batch-major; default: as ``x`` is. ``backend`` is
    one that is installed; default: the one in use there.

    Raises:
        InputError: a backend that does not compute on this device.
    """
    chosen = backend or backends.current(x.device.type)
    flat = x if x.ndim == 2 else x.reshape(-1, plan.cols)
    y: Tensor = _Linear.apply(flat, values, bias, plan, feature_major, chosen)  # type: ignore[no-untyped-call]
    return y if x.ndim == 2 else y.reshape(*x.shape[:-1], plan.rows)


def full(x: Tensor, weight: SparseWeight, bias: Tensor | None) -> Tensor:
    """The same where every position is active: the values are the dense weight."""
    return F.linear(x, weight.values.view(weight.shape), bias)
