"""Products of a sparse matrix by torch's own CSR tensors: where neither compiled kernels nor numba are, and
on a GPU (by cuSPARSE) where that is asked for."""

from __future__ import annotations

import warnings
from functools import cache

import torch
from torch import Tensor

from regraft.kernels.plan import Plan

BETA = "Sparse CSR tensor support is in beta state"


@cache
def available() -> bool:
    """Whether this torch multiplies CSR tensors on the CPU: it does with Intel's MKL."""
    return bool(torch.backends.mkl.is_available())  # type: ignore[no-untyped-call]


def available_on_gpu() -> bool:
    """Whether this torch multiplies CSR tensors on a GPU: all that know of GPUs do."""
    return True


@cache
def _warned() -> bool:
    """Let torch say once, unheard, that its CSR tensors are in beta state."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=BETA, category=UserWarning)
        _matrix(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1), (1, 1))
    return True


def _matrix(rowptr: Tensor, col: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    # the parts come from a plan: nothing is left to check
    return torch.sparse_csr_tensor(rowptr, col, values, shape, check_invariants=False)


def forward(x: Tensor, values: Tensor, bias: Tensor | None, plan: Plan, feature_major: bool) -> Tensor:
    """x [batch, in] (any strides) -> y [batch, out], feature-major or batch-major."""
    _warned()
    w = _matrix(plan.rowptr32, plan.col, values.detach(), (plan.rows, plan.cols))
    y = (w @ x.detach().t().contiguous()).t()
    # in either case no view of the product: operations in place after the layer need a tensor of its own
    y = y.clone() if bias is None else y + bias.detach()
    return y if feature_major else y.contiguous()


def backward(
    x: Tensor, values: Tensor, dy: Tensor, plan: Plan, want: tuple[bool, bool, bool], feature_major: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of input [batch, in], values [nnz] and bias [out], where wanted."""
    _warned()
    dx = dvalues = None
    if want[0]:
        colptr, row, perm = plan.by_column
        w = _matrix(colptr, row, values[perm], (plan.cols, plan.rows))
        dx = (w @ dy.t().contiguous()).t()
        dx = dx if feature_major else dx.contiguous()
    if want[1]:
        pattern = _matrix(plan.rowptr32, plan.col, torch.zeros_like(values), (plan.rows, plan.cols))
        product = torch.sparse.sampled_addmm(pattern, dy.t().contiguous(), x.contiguous(), beta=0.0)
        dvalues = product.values()
    return dx, dvalues, dy.sum(0) if want[2] else None
