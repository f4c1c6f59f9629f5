"""Many equal multilayer perceptrons forward and backward at once, by batched products layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Forward = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""(parameters by name, each ``[members, ...]``; x ``[members, n, ...]``) -> output ``[members, n, out]``."""


class Activation(NamedTuple):
    """An activation whose derivative follows from what it gave; both work in place.

    Attributes:
        apply: ``z -> f(z)``.
        chain: ``(gradient by f(z), f(z)) -> gradient by z``.
    """

    apply: Callable[[Tensor], Tensor]
    chain: Callable[[Tensor, Tensor], Tensor]


_aten = torch.ops.aten

ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.ReLU: Activation(
        torch.relu_, lambda g, h: cast(Tensor, _aten.threshold_backward.grad_input(g, h, 0, grad_input=g))
    ),
    nn.Tanh: Activation(
        torch.tanh_, lambda g, h: cast(Tensor, _aten.tanh_backward.grad_input(g, h, grad_input=g))
    ),
    nn.Sigmoid: Activation(
        torch.sigmoid_, lambda g, h: cast(Tensor, _aten.sigmoid_backward.grad_input(g, h, grad_input=g))
    ),
}


def layerwise(model: nn.Module) -> Forward | None:
    """The forward pass of a stack of networks like ``model``, differentiable by its parameters; None unless
    that is a plain chain of Linear layers, each followed by one of ``ACTIVATIONS`` or none.

    It takes a third of the time of ``torch.func.vmap``: activations are computed in place, so that the
    largest arrays are half as many, and products have the layout in which ``bmm`` is fast.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    >>> stacked = {name: p.expand(5, *p.shape) for name, p in model.named_parameters()}
    >>> layerwise(model)(stacked, torch.zeros(5, 7, 3)).shape
    torch.Size([5, 7, 1])
    """
    if type(model) is not nn.Sequential or not all(_known(m) for m in model):
        return None
    names: list[str] = []
    activations: list[Activation | None] = []
    for name, layer in model.named_children():
        if type(layer) is nn.Linear:
            names.append(name)
            activations.append(None)
        elif type(layer) in ACTIVATIONS:
            if not names or activations[-1] is not None:
                return None
            activations[-1] = ACTIVATIONS[type(layer)]
    if not names:
        return None

    def forward(parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        weights = [parameters[f"{name}.weight"] for name in names]
        biases = [parameters.get(f"{name}.bias") for name in names]
        output = _Chain.apply(x.flatten(2), activations, *weights, *biases)  # type: ignore[no-untyped-call]
        return cast(Tensor, output)

    return forward


def _known(layer: nn.Module) -> bool:
    if layer._forward_hooks or layer._forward_pre_hooks or getattr(layer, "parametrizations", None):
        return False
    if isinstance(layer, nn.Flatten):
        return (layer.start_dim, layer.end_dim) == (1, -1)
    return type(layer) in (nn.Linear, nn.Identity, *ACTIVATIONS)


class _Chain(torch.autograd.Function):
    """h_l = f_l(h_{l-1} W_l^T + b_l), layer after layer, from ``x`` [members, n, in]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, activations: list[Activation | None], *parameters: Tensor | None
    ) -> Tensor:
        layers = len(activations)
        weights = cast(tuple[Tensor, ...], parameters[:layers])
        values = [x]
        for w_MOI, b_MO, activation in zip(weights, parameters[layers:], activations, strict=True):
            bias = None if b_MO is None else b_MO.unsqueeze(1)
            z = _product(values[-1], w_MOI.transpose(1, 2), bias)
            values.append(z if activation is None else activation.apply(z))
        ctx.save_for_backward(*values, *weights)
        ctx.activations = activations
        return values[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        layers = len(ctx.activations)
        values, weights = ctx.saved_tensors[: layers + 1], ctx.saved_tensors[layers + 1 :]
        for_weights, for_biases = ctx.needs_input_grad[2 : 2 + layers], ctx.needs_input_grad[2 + layers :]
        dw: list[Tensor | None] = [None] * layers
        db: list[Tensor | None] = [None] * layers
        own = False  # the gradient that autograd hands in is not ours to change
        for i in reversed(range(layers)):
            if ctx.activations[i] is not None:
                g = ctx.activations[i].chain(g if own else g.clone(), values[i + 1])
            dw[i] = _weight_gradient(values[i], g) if for_weights[i] else None
            db[i] = g.sum(1) if for_biases[i] else None
            if i > 0:
                g, own = _product(g, weights[i]), True
        return None, None, *dw, *db


def _weight_gradient(x_MBI: Tensor, g_MBO: Tensor) -> Tensor:
    """[members, out, in], by the product whose result has the longer rows."""
    if g_MBO.shape[2] <= x_MBI.shape[2]:
        return _product(g_MBO.transpose(1, 2), x_MBI)
    return _product(x_MBI.transpose(1, 2), g_MBO).transpose(1, 2)


def _product(a: Tensor, b: Tensor, plus: Tensor | None = None) -> Tensor:
    """a b + plus of each member: ``[M, m, k]``, ``[M, k, n]`` and, broadcast, ``[M, m, n]``."""
    if a.shape[2] == 1:  # bmm would take twice the time
        return a * b if plus is None else torch.addcmul(plus, a, b)
    # where a size is 1, the reshape gives strides that do not look like a transposed matrix's, which bmm
    # would multiply several times slower
    a, b = a.reshape(a.shape), b.reshape(b.shape)
    return torch.bmm(a, b) if plus is None else torch.baddbmm(plus, a, b)
