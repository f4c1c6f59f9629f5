"""The forward pass of many equal multilayer perceptrons at once, by one batched product a layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
    members, n_out, n_in = w_MOI.shape
    # for one input, the reshape gives strides with which the product takes a quarter of the time
    w_MIO = w_MOI.transpose(1, 2).reshape(members, n_in, n_out)
    return torch.bmm(x_MBI, w_MIO) if b_MO is None else torch.baddbmm(b_MO.unsqueeze(1), x_MBI, w_MIO)
