"""The forward pass of many equal multilayer perceptrons at once, by one batched product a layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

Forward = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""(parameters by name, each ``[members, ...]``; x ``[members, n, ...]``) -> output ``[members, n, out]``."""

POINTWISE = (
    nn.Identity, nn.ReLU, nn.Tanh, nn.Sigmoid, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Dropout,
)  # fmt: skip
"""What treats every number alike, and so does to a stack of networks what it does to each."""


def layerwise(model: nn.Module) -> Forward | None:
    """The forward pass of a stack of networks like ``model``; None unless it is a plain chain of Linear
    layers, pointwise functions and flattening.

    It takes about half the time of ``torch.func.vmap``, which adds each bias in a pass of its own.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    >>> stacked = {name: p.expand(5, *p.shape) for name, p in model.named_parameters()}
    >>> layerwise(model)(stacked, torch.zeros(5, 7, 3)).shape
    torch.Size([5, 7, 1])
    """
    if type(model) is not nn.Sequential or not all(_known(m) for m in model):
        return None
    layers = dict(model.named_children())
    if not any(isinstance(m, nn.Linear) for m in layers.values()):
        return None

    def forward(parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        for name, layer in layers.items():
            if isinstance(layer, nn.Flatten):
                x = x.flatten(2)
            elif isinstance(layer, nn.Linear):
                x = _linear(x, parameters[f"{name}.weight"], parameters.get(f"{name}.bias"))
            else:
                x = layer(x)
        return x

    return forward


def _known(layer: nn.Module) -> bool:
    if layer._forward_hooks or layer._forward_pre_hooks or getattr(layer, "parametrizations", None):
        return False
    if isinstance(layer, nn.Flatten):
        return (layer.start_dim, layer.end_dim) == (1, -1)
    return type(layer) is nn.Linear or type(layer) in POINTWISE


def _linear(x_MBI: Tensor, w_MOI: Tensor, b_MO: Tensor | None) -> Tensor:
    return cast(Tensor, _Linear.apply(x_MBI, w_MOI, b_MO))  # type: ignore[no-untyped-call]


class _Linear(torch.autograd.Function):
    """x W^T + b of each member, whose every product has the layout in which ``bmm`` is fast: with one input
    or one output, autograd's own are up to nine times slower."""

    @staticmethod
    def forward(ctx: Any, x_MBI: Tensor, w_MOI: Tensor, b_MO: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_MBI, w_MOI)
        bias = None if b_MO is None else b_MO.unsqueeze(1)
        return _product(x_MBI, w_MOI.transpose(1, 2), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g_MBO,) = gradients
        x_MBI, w_MOI = ctx.saved_tensors
        for_x, for_w, for_b = ctx.needs_input_grad
        dx = _product(g_MBO, w_MOI) if for_x else None
        dw = None
        if for_w and g_MBO.shape[2] <= x_MBI.shape[2]:
            dw = _product(g_MBO.transpose(1, 2), x_MBI)
        elif for_w:
            dw = _product(x_MBI.transpose(1, 2), g_MBO).transpose(1, 2)
        return dx, dw, g_MBO.sum(1) if for_b else None


def _product(a: Tensor, b: Tensor, plus: Tensor | None = None) -> Tensor:
    """a b + plus of each member: ``[M, m, k]``, ``[M, k, n]`` and, broadcast, ``[M, m, n]``."""
    if a.shape[2] == 1:
        return a * b if plus is None else torch.addcmul(plus, a, b)
    # where a size is 1, the reshape gives strides that do not look like a transposed matrix's
    a, b = a.reshape(a.shape), b.reshape(b.shape)
    return torch.bmm(a, b) if plus is None else torch.baddbmm(plus, a, b)
