"""Sparse convolution: direct over the active connections, or dense, whichever is faster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import grad

from regraft.kernels import conv_plan, dispatch, materialised, native
from regraft.kernels.conv_plan import ConvPlan
from regraft.weight import SparseWeight


def _load() -> ModuleType | None:
    try:
        from regraft.kernels import _conv  # type: ignore[attr-defined, unused-ignore]
    except ImportError:
        return None
    module: ModuleType = _conv
    return module


_module = _load()
MOST_PLANS = 8


def available() -> bool:
    """Whether the compiled convolution is installed."""
    return _module is not None and native.available()


def faster_compressed(weight: SparseWeight, out_size: tuple[int, int], batch: int) -> bool:
    """Whether the direct way is the faster one for a convolution, by the measured crossovers
    (docs/results/sparse-convolution.md).

    Dense convolutions gain from many channels, and the direct way loses to padding on tiny images. The
    crossovers were measured with as many threads for both; torch often has more.
    """
    if weight.shape[0] <= 16:
        crossover = 0.6
    elif weight.shape[0] <= 32:
        crossover = 0.45
    elif batch > 1 and out_size[0] * out_size[1] < 36:
        crossover = 0.25
    else:
        crossover = 0.35
    threads = native.get_threads()
    fair = min(1.0, threads / torch.get_num_threads())
    return weight.nnz < crossover * fair * weight.size


def conv(
    x: Tensor,
    weight: SparseWeight,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """Convolution over 1, 2 or 3 spatial dimensions, as ``torch.nn.functional.conv*d``, by the faster
    computation that is right here.

    >>> w = SparseWeight((1, 1, 3), torch.tensor([1]), torch.tensor([2.0]))
    >>> conv(torch.tensor([[[1.0, 2.0, 3.0]]]), w, None, (1,), "same", (1,), 1).tolist()
    [[[2.0, 4.0, 6.0]]]
    """
    if not torch.compiler.is_compiling() and _fits(x, weight, bias, groups):
        plan = _chosen(x, weight, stride, padding, dilation, groups)
        if plan is not None:
            return _apply(x, weight, bias, plan)
    return materialised.conv(x, weight, bias, stride, padding, dilation, groups)


def _chosen(
    x: Tensor,
    weight: SparseWeight,
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int],
    groups: int,
) -> ConvPlan | None:
    """The plan of the direct way, None where the dense one is faster or the kernel does not fit the image.

    It is kept in the weight's cache, which a new topology empties.
    """
    mode, padding = dispatch.current(), padding if isinstance(padding, str) else tuple(padding)
    threads = native.get_threads(), torch.get_num_threads()
    key = (x.shape, tuple(stride), padding, tuple(dilation), groups, mode, threads)
    known: dict[Any, tuple[Tensor, ConvPlan | None]] = weight.cache.setdefault("conv", {})
    index = weight.index
    found = known.get(key)
    if found is not None and found[0] is index:
        return found[1]
    if len(known) >= MOST_PLANS:  # images of many sizes must not fill the memory
        known.clear()
    o = conv_plan.options(weight.shape, stride, padding, dilation, groups)
    size = (1, x.shape[-1]) if len(weight.shape) == 3 else (x.shape[-2], x.shape[-1])
    out = conv_plan.out_size(size, o)
    batch = x.shape[0] if x.ndim == len(weight.shape) else 1
    wanted = min(out) > 0 and (mode == "compressed" or faster_compressed(weight, out, batch))
    plan = conv_plan.build(weight, size, batch, o) if wanted else None
    known[key] = index, plan
    return plan


def _fits(x: Tensor, weight: SparseWeight, bias: Tensor | None, groups: int) -> bool:
    """Whether the compiled kernels may see these very tensors."""
    dims = len(weight.shape)
    if not (available() and dims in (3, 4) and x.ndim in (dims - 1, dims)):
        return False
    channels = x.shape[0] if x.ndim == dims - 1 else x.shape[1]
    return (
        channels == weight.shape[1] * groups
        and weight.shape[0] % groups == 0
        and dispatch.ordinary(x, weight.values, weight, bias)
    )


def _apply(x: Tensor, weight: SparseWeight, bias: Tensor | None, plan: ConvPlan) -> Tensor:
    dims, values = len(weight.shape), weight.values
    images = x if x.ndim == dims else x.unsqueeze(0)
    if dims == 3:
        images = images.unsqueeze(2)
    y: Tensor
    if torch.is_grad_enabled() and (
        x.requires_grad or values.requires_grad or (bias is not None and bias.requires_grad)
    ):
        y = _Conv.apply(images, values, bias, plan)  # type: ignore[no-untyped-call]
    else:
        y = forward(images.contiguous(), values.contiguous(), bias, plan)
    if dims == 3:
        y = y.squeeze(2)
    return y if x.ndim == dims else y.squeeze(0)


def _level() -> int:
    return native.ISAS.index(native.isa() or "baseline")


def _team(plan: ConvPlan, batch: int) -> int:
    work = plan.source.numel() * plan.out_height * plan.out_width * batch
    return max(1, min(native.get_threads(), work // 400_000))


def _pointer(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def forward(x: Tensor, values: Tensor, bias: Tensor | None, plan: ConvPlan) -> Tensor:
    """x [batch, channels, height, width], contiguous -> y [batch, out, height, width]."""
    assert _module is not None
    if bias is not None:
        bias = bias.contiguous()
    y = x.new_empty((x.shape[0], plan.shape[0], plan.out_height, plan.out_width))
    scratch = x.new_empty(plan.packed_x), x.new_empty(plan.packed_y)
    _module.forward(
        _level(), x.dtype == torch.float64, _team(plan, len(x)), plan.geometry.data_ptr(), len(x),
        values.data_ptr(), _pointer(bias), x.data_ptr(), y.data_ptr(), *map(_pointer, scratch),
    )  # fmt: skip
    return y


def backward(
    x: Tensor, values: Tensor, dy: Tensor, plan: ConvPlan, want: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of input, values and bias, where wanted; ``x`` and ``dy`` are contiguous."""
    assert _module is not None
    dx = None
    if want[0]:
        dx = torch.empty_like(x) if plan.covered else torch.zeros_like(x)
    dvalues = torch.zeros_like(values) if want[1] else None
    dbias = x.new_zeros(dy.shape[1]) if want[2] else None
    scratch = x.new_empty(plan.packed_x), x.new_empty(plan.packed_y)
    _module.backward(
        _level(), x.dtype == torch.float64, _team(plan, len(x)), plan.geometry.data_ptr(), len(x),
        values.data_ptr(), x.data_ptr(), dy.data_ptr(), _pointer(dx), _pointer(dvalues), _pointer(dbias),
        *map(_pointer, scratch),
    )  # fmt: skip
    return dx, dvalues, dbias


class _Conv(torch.autograd.Function):
    """x [batch, channels, height, width], values [nnz], bias [out] or None -> y."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, plan: ConvPlan) -> Tensor:
        x, values = x.contiguous(), values.contiguous()
        ctx.save_for_backward(x, values)
        ctx.plan = plan
        return forward(x, values, bias, plan)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = grads
        x, values = ctx.saved_tensors
        want = tuple(ctx.needs_input_grad[:3])
        if torch.is_grad_enabled() or dy.dtype != x.dtype or dy.device.type != "cpu":
            made = _differentiable(x, values, dy, ctx.plan, want)
        else:
            made = backward(x, values, dy.contiguous(), ctx.plan, want)
        return (*made, None)


def _differentiable(
    x: Tensor, values: Tensor, dy: Tensor, plan: ConvPlan, want: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """The gradients through differentiable torch operations: the way of ``create_graph=True``."""
    o, full = plan.options, plan.shape
    size = math.prod(full)
    w = values.new_zeros(size).scatter(0, plan.source, values).view(full)
    (top, bottom), (left, right) = o.pads
    padded = torch.nn.functional.pad(x, (left, right, top, bottom))
    common: tuple[Any, ...] = (o.stride, (0, 0), o.dilation, o.groups)
    dx = dw = None
    if want[0]:
        dx = grad.conv2d_input(padded.shape, w, dy, *common)  # type: ignore[no-untyped-call]
        dx = dx[:, :, top : top + x.shape[2], left : left + x.shape[3]]
    if want[1]:
        dw = grad.conv2d_weight(padded, full, dy, *common)  # type: ignore[no-untyped-call]
        dw = dw.reshape(-1)[plan.source]
    return dx, dw, dy.sum((0, 2, 3)) if want[2] else None
