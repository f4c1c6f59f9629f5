"""Residual networks for small images: ResNet-6n+2 (He et al. 2016) and wide ResNets (Zagoruyko 2016)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from regraft.errors import InputError
from regraft.models.parts import activation
from regraft.models.spec import DEEPEST, Request, check_fields, check_probability, check_sizes, number_of

_FIELDS = ("input", "classes", "depth", "activation", "dropout")


def parse_resnet(argument: str, request: Request) -> dict[str, Any]:
    """``20``: the number of layers, 6n + 2; 3x32x32 and 10 classes without data."""
    depth = number_of(argument)
    if depth is None:
        raise InputError(
            f"the model 'resnet:{argument}' needs its number of layers, 6n + 2, as in resnet:20 or resnet-20"
        )
    return {"name": "resnet", "depth": _depth("resnet", depth, 2), **_rest("resnet", request)}


def parse_wide_resnet(argument: str, request: Request) -> dict[str, Any]:
    """``16-2``: the number of layers, 6n + 4, and how many times wider; 3x32x32 and 10 classes without
    data."""
    first, _, second = argument.partition("-")
    depth, width = number_of(first), number_of(second)
    if depth is None or width is None:
        raise InputError(
            f"the model 'wrn:{argument}' needs its number of layers, 6n + 4, and its width, as in wrn:16-2 "
            "or wrn-16-2"
        )
    return {
        "name": "wrn", "depth": _depth("wrn", depth, 4), "width": width, **_rest("wrn", request),
    }  # fmt: skip


def _rest(name: str, request: Request) -> dict[str, Any]:
    shape = request.input_shape or (3, 32, 32)
    if len(shape) == 2:
        shape = (1, *shape)
    _check_input(name, shape)
    return {
        "input": list(shape), "classes": request.classes or 10, "activation": request.activation,
        "dropout": request.dropout,
    }  # fmt: skip


def make_resnet(spec: Mapping[str, Any]) -> nn.Sequential:
    """A 3x3 convolution to 16 maps, three groups of n blocks with 16, 32 and 64 maps, the mean of each map,
    and one Linear layer (He et al. 2016, arXiv:1512.03385, section 4.2).

    Each group but the first halves the image. Shortcuts have no weights (the paper's option A): where a
    group begins they take every second pixel and add maps of zeros. ResNet-20 has 0.27 million parameters.
    """
    channels, classes, depth, dropout = _checked(spec, _FIELDS, 2)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
    layers["norm"] = nn.BatchNorm2d(16)
    layers["activation"] = activation(spec["activation"])
    n_in = 16
    for group, n_out in enumerate((16, 32, 64), start=1):
        for block in range((depth - 2) // 6):
            stride = 2 if block == 0 and group > 1 else 1
            layers[f"group{group}_{block + 1}"] = BasicBlock(n_in, n_out, stride, spec["activation"], dropout)
            n_in = n_out
    return _with_head(layers, n_in, classes)


def make_wide_resnet(spec: Mapping[str, Any]) -> nn.Sequential:
    """As a ResNet, with ``width`` times 16, 32 and 64 maps, normalisation and activation before each
    convolution, and dropout between the two of a block (Zagoruyko and Komodakis 2016, arXiv:1605.07146,
    table 1). Where the number of maps changes, the shortcut is a 1x1 convolution. WRN-28-10 has 36.5 million
    parameters.
    """
    channels, classes, depth, dropout = _checked(spec, (*_FIELDS, "width"), 4)
    width = check_sizes({"name": "wrn", "width": [spec["width"]]}, "width", at_least=1)[0]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
    n_in = 16
    for group, maps in enumerate((16, 32, 64), start=1):
        for block in range((depth - 4) // 6):
            stride = 2 if block == 0 and group > 1 else 1
            layers[f"group{group}_{block + 1}"] = WideBlock(
                n_in, maps * width, stride, spec["activation"], dropout
            )
            n_in = maps * width
    layers["norm"] = nn.BatchNorm2d(n_in)
    layers["activation"] = activation(spec["activation"])
    return _with_head(layers, n_in, classes)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each normalised, and a shortcut without weights around them."""

    def __init__(self, n_in: int, n_out: int, stride: int, act: str, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.activation1 = activation(act)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.activation2 = activation(act)
        self.shortcut = nn.Identity() if stride == 1 and n_in == n_out else Subsample(stride, n_out - n_in)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, n_in, h, w]`` to ``[n, n_out, h / stride, w / stride]``, sizes rounded up."""
        inside = self.dropout(self.activation1(self.norm1(self.conv1(x))))
        return self.activation2(self.norm2(self.conv2(inside)) + self.shortcut(x))  # type: ignore[no-any-return]


class WideBlock(nn.Module):
    """Two 3x3 convolutions, each after a normalisation and an activation, and a shortcut around them."""

    def __init__(self, n_in: int, n_out: int, stride: int, act: str, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(n_in)
        self.activation1 = activation(act)
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.activation2 = activation(act)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        # where the number of maps changes, the shortcut starts from the activated maps too
        self.shortcut = None if n_in == n_out else nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """As ``BasicBlock``."""
        activated = self.activation1(self.norm1(x))
        inside = self.dropout(self.activation2(self.norm2(self.conv1(activated))))
        return self.conv2(inside) + (x if self.shortcut is None else self.shortcut(activated))  # type: ignore[no-any-return]


class Subsample(nn.Module):
    """Every ``stride``-th pixel, then ``more`` maps of zeros, half of them before and half behind.

    >>> import torch
    >>> Subsample(2, 2)(torch.ones(1, 1, 4, 4))[0, :, 0].tolist()
    [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    """

    def __init__(self, stride: int, more: int) -> None:
        super().__init__()
        self.stride, self.more = stride, more

    def forward(self, x: Tensor) -> Tensor:
        """``[n, c, h, w]`` to ``[n, c + more, h / stride, w / stride]``, sizes rounded up."""
        before = self.more // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.more - before))

    def extra_repr(self) -> str:
        """For ``repr``."""
        return f"stride={self.stride}, more={self.more}"


def _with_head(layers: OrderedDict[str, nn.Module], maps: int, classes: int) -> nn.Sequential:
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(maps, classes)
    return nn.Sequential(layers)


def _checked(spec: Mapping[str, Any], fields: tuple[str, ...], rest: int) -> tuple[int, int, int, float]:
    """Channels, classes, depth and dropout of a spec that may come from a file."""
    check_fields(spec, fields)
    name = str(spec["name"])
    shape = check_sizes(spec, "input", at_least=1)
    _check_input(name, tuple(shape))
    classes = check_sizes({"name": name, "classes": [spec["classes"]]}, "classes", at_least=1)[0]
    depth = check_sizes({"name": name, "depth": [spec["depth"]]}, "depth", at_least=1)[0]
    activation(spec["activation"])
    return shape[0], classes, _depth(name, depth, rest), check_probability(spec["dropout"])


def _check_input(name: str, shape: tuple[int, ...]) -> None:
    if len(shape) != 3:
        raise InputError(
            f"{name} takes images with channels, height and width, but the input is "
            f"{'x'.join(map(str, shape))}: take an mlp instead"
        )


def _depth(name: str, depth: int, rest: int) -> int:
    if depth < 6 + rest or (depth - rest) % 6:
        near = dict.fromkeys(max(n, 1) * 6 + rest for n in ((depth - rest) // 6, (depth - rest) // 6 + 1))
        raise InputError(
            f"{name} has 6n + {rest} layers, but the depth is {depth}: take {' or '.join(map(str, near))}"
        )
    if depth > DEEPEST:
        raise InputError(f"{name} is to have {depth} layers, more than {DEEPEST}: take fewer")
    return depth
