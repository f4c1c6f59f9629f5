"""How torch's modules and functions are read as operations of a ``Program``."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from regraft.errors import InputError
from regraft.export.program import Weight
from regraft.layers import SparseLayer
from regraft.weight import SparseWeight

ALIASES = ("alias",)
"""Operations that do nothing in evaluation mode."""


@dataclass(frozen=True)
class Operation:
    """An operation before its values are numbered."""

    op: str
    inputs: tuple[fx.Node, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    weight: Weight | None = None
    bias: NDArray[np.float32] | None = None
    factor: NDArray[np.float32] | None = None


def read_module(where: str, module: nn.Module, node: fx.Node) -> Operation:
    """The operation of a leaf module.

    Raises:
        InputError: a module, or an option of one, that export does not know.
    """
    inputs = tuple(a for a in node.args if isinstance(a, fx.Node))
    if isinstance(
        module, nn.Identity | nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d | nn.AlphaDropout
    ):
        return Operation("alias", inputs)
    if isinstance(module, nn.Flatten | nn.Unflatten):
        return Operation("reshape", inputs)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        return _batch_norm(where, module, inputs)
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | SparseLayer):
        return _layer(where, module, inputs)
    if type(module) in _POOLS:
        return _pool(where, module, node, inputs)
    if isinstance(module, nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d | nn.AdaptiveAvgPool3d):
        return _adaptive(where, node, inputs)
    if type(module) in _ACTIVATION_MODULES:
        op, names = _ACTIVATION_MODULES[type(module)]
        settings = {name: getattr(module, name) for name in names}
        return _activation(where, op, settings, node, inputs)
    raise _unsupported(where, type(module).__name__)


def read_call(node: fx.Node) -> Operation:
    """The operation of a function or method call.

    Raises:
        InputError: a call that export does not know.
    """
    inputs = tuple(a for a in node.args if isinstance(a, fx.Node) and "shape" in a.meta)
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    if node.target in _RESHAPES:
        return Operation("reshape", inputs[:1])
    if node.target in _NOTHING:
        if node.target is F.dropout and node.kwargs.get("training", True) and node.args[2:3] != (False,):
            raise InputError(
                f"'{node.name}' drops units in evaluation mode too: cannot export a random network"
            )
        return Operation("alias", inputs[:1])
    if node.target in (operator.add, operator.iadd, torch.add, "add", "add_"):
        shapes = {a.meta["shape"] for a in inputs}
        if len(inputs) != 2 or len(shapes) != 1 or node.kwargs:
            raise _unsupported(node.name, "an addition of anything but two activations of one shape")
        return Operation("add", inputs)
    if node.target in _ACTIVATION_CALLS:
        op, names = _ACTIVATION_CALLS[node.target]
        rest = dict(zip(("input", *names), node.args, strict=False)) | dict(node.kwargs)
        settings = {n: rest.get(n, _DEFAULTS[n]) for n in names}
        return _activation(node.name, op, settings, node, inputs)
    if node.target in _POOL_CALLS:
        make, names = _POOL_CALLS[node.target]
        given = dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
        return _pool(node.name, make(**given), node, inputs[:1])
    if node.target in (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d):
        return _adaptive(node.name, node, inputs[:1])
    raise _unsupported(node.name, f"the call of {name}")


def _unsupported(where: str, what: str) -> InputError:
    return InputError(
        f"layer '{where}' is {what}, which export cannot write: it takes Linear, Conv1d/2d/3d (dense or "
        "sparse), BatchNorm, max and average pooling, flatten, additions and the usual activations"
    )


def _array(where: str, tensor: Tensor) -> NDArray[np.float32]:
    array = tensor.detach().to("cpu", torch.float32).numpy().copy()
    if not np.isfinite(array).all():
        raise InputError(f"layer '{where}' holds NaN or infinite values, so the network is not exported")
    return cast("NDArray[np.float32]", array)


def _layer(where: str, module: nn.Module, inputs: tuple[fx.Node, ...]) -> Operation:
    held = module.weight
    if isinstance(held, SparseWeight):
        index = held.index.cpu().numpy()
        weight = Weight(tuple(held.shape), index, _array(where, held.values))
    else:
        weight = Weight.from_dense(_array(where, cast(Tensor, held)))
    bias = None if module.bias is None else _array(where, cast(Tensor, module.bias))
    if len(weight.shape) == 2:
        return Operation("linear", inputs, {}, weight, bias)
    conv = cast(nn.Conv2d, module)
    if conv.padding_mode != "zeros":
        raise _unsupported(where, f"a convolution with padding_mode '{conv.padding_mode}'")
    kernel = weight.shape[2:]
    if conv.padding == "valid":
        pads = [(0, 0)] * len(kernel)
    elif conv.padding == "same":  # torch puts the odd one behind
        totals = [d * (k - 1) for d, k in zip(conv.dilation, kernel, strict=True)]
        pads = [(t // 2, t - t // 2) for t in totals]
    else:
        pads = [(int(p), int(p)) for p in conv.padding]
    settings = {
        "kernel": kernel, "stride": tuple(conv.stride), "pads": tuple(pads),
        "dilation": tuple(conv.dilation), "groups": conv.groups,
    }  # fmt: skip
    return Operation("conv", inputs, settings, weight, bias)


def _batch_norm(where: str, module: Any, inputs: tuple[fx.Node, ...]) -> Operation:
    """y = (x - mean) / sqrt(var + eps) * gamma + beta (Ioffe and Szegedy 2015, algorithm 2)."""
    if module.running_mean is None:
        raise InputError(f"layer '{where}' keeps no running statistics, so its output depends on the batch")
    factor = torch.rsqrt(module.running_var.double() + module.eps)
    shift = -module.running_mean.double() * factor
    if module.weight is not None:
        factor, shift = factor * module.weight, shift * module.weight + module.bias
    return Operation("scale", inputs, {}, None, _array(where, shift), _array(where, factor))


_POOLS: dict[type[nn.Module], tuple[str, int]] = {
    nn.MaxPool1d: ("max_pool", 1), nn.MaxPool2d: ("max_pool", 2), nn.MaxPool3d: ("max_pool", 3),
    nn.AvgPool1d: ("avg_pool", 1), nn.AvgPool2d: ("avg_pool", 2), nn.AvgPool3d: ("avg_pool", 3),
}  # fmt: skip

_MAX_NAMES = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_AVG_NAMES = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
_POOL_CALLS: dict[Any, tuple[Callable[..., nn.Module], tuple[str, ...]]] = {
    F.max_pool1d: (nn.MaxPool1d, _MAX_NAMES), F.max_pool2d: (nn.MaxPool2d, _MAX_NAMES),
    F.max_pool3d: (nn.MaxPool3d, _MAX_NAMES), F.avg_pool1d: (nn.AvgPool1d, _AVG_NAMES),
    F.avg_pool2d: (nn.AvgPool2d, _AVG_NAMES), F.avg_pool3d: (nn.AvgPool3d, _AVG_NAMES),
}  # fmt: skip


def _pool(where: str, module: Any, node: fx.Node, inputs: tuple[fx.Node, ...]) -> Operation:
    op, dims = _POOLS[type(module)]

    def spread(value: int | tuple[int, ...]) -> tuple[int, ...]:
        return (value,) * dims if isinstance(value, int) else tuple(value) * (dims // len(tuple(value)))

    if module.ceil_mode:
        raise _unsupported(where, "a pooling with ceil_mode")
    if getattr(module, "return_indices", False) or getattr(module, "divisor_override", None):
        raise _unsupported(where, "a pooling with return_indices or divisor_override")
    kernel = spread(module.kernel_size)
    settings: dict[str, Any] = {
        "kernel": kernel,
        "stride": kernel if module.stride is None else spread(module.stride),
        "pads": tuple((p, p) for p in spread(module.padding)),
        "dilation": spread(getattr(module, "dilation", 1)),
    }
    if op == "avg_pool":
        settings["count_pad"] = bool(module.count_include_pad)
    return Operation(op, inputs, settings)


def _adaptive(where: str, node: fx.Node, inputs: tuple[fx.Node, ...]) -> Operation:
    before, after = inputs[0].meta["shape"][2:], node.meta["shape"][2:]
    if any(a % b for a, b in zip(before, after, strict=True)):
        raise _unsupported(where, f"an adaptive pooling from {before} to {after}, which do not divide")
    kernel = tuple(a // b for a, b in zip(before, after, strict=True))
    pads = ((0, 0),) * len(kernel)
    settings = {
        "kernel": kernel, "stride": kernel, "pads": pads, "dilation": (1,) * len(kernel), "count_pad": True,
    }  # fmt: skip
    return Operation("avg_pool", inputs, settings)


_ACTIVATION_MODULES: dict[type[nn.Module], tuple[str, tuple[str, ...]]] = {
    nn.ReLU: ("relu", ()), nn.ReLU6: ("relu6", ()), nn.LeakyReLU: ("leaky_relu", ("negative_slope",)),
    nn.ELU: ("elu", ("alpha",)), nn.Sigmoid: ("sigmoid", ()), nn.Tanh: ("tanh", ()), nn.SiLU: ("silu", ()),
    nn.GELU: ("gelu", ("approximate",)), nn.Softmax: ("softmax", ("dim",)),
    nn.LogSoftmax: ("log_softmax", ("dim",)),
}  # fmt: skip

_ACTIVATION_CALLS: dict[Any, tuple[str, tuple[str, ...]]] = {
    F.leaky_relu: ("leaky_relu", ("negative_slope",)), F.elu: ("elu", ("alpha",)), F.silu: ("silu", ()),
    F.gelu: ("gelu", ("approximate",)), F.relu6: ("relu6", ()),
}  # fmt: skip
for _name in ("relu", "sigmoid", "tanh"):
    for _target in (getattr(torch, _name), getattr(F, _name), _name, f"{_name}_"):
        _ACTIVATION_CALLS[_target] = (_name, ())
for _name in ("softmax", "log_softmax"):
    for _target in (getattr(torch, _name), getattr(F, _name), _name):
        _ACTIVATION_CALLS[_target] = (_name, ("dim",))

_DEFAULTS: dict[str, Any] = {"negative_slope": 0.01, "alpha": 1.0, "approximate": "none", "dim": None}

_RESHAPES = (
    torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze,
    "flatten", "view", "reshape", "squeeze", "unsqueeze",
)  # fmt: skip
_NOTHING = (F.dropout, "contiguous", "detach", "clone", torch.clone, "float", "requires_grad_")


def _activation(
    where: str, op: str, settings: dict[str, Any], node: fx.Node, inputs: tuple[fx.Node, ...]
) -> Operation:
    if op in ("softmax", "log_softmax"):
        dims = len(node.meta["shape"])
        dim = settings.pop("dim")
        if dim is None:
            dim = 1 if dims == 2 else 0  # torch's own implicit choice
        if dim % dims != dims - 1:
            raise _unsupported(where, f"a {op} along dimension {dim}, which is not the last one,")
    if settings.pop("approximate", "none") != "none":
        raise _unsupported(where, "an approximate GELU")
    return Operation(op, inputs[:1], {k: float(v) for k, v in settings.items()})
