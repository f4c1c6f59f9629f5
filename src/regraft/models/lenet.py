"""LeNet-5 (LeCun et al. 1998, figure 2), with max pooling and full connections between its maps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import nn

from regraft.errors import InputError
from regraft.models.parts import activation
from regraft.models.spec import Request, check_fields, check_probability, check_sizes


def parse_lenet_5(argument: str, request: Request) -> dict[str, Any]:
    """One or three channels of 28x28 or 32x32 pixels; 1x28x28 and 10 classes without data."""
    request.refuse_argument("lenet-5", argument)
    shape = request.input_shape or (1, 28, 28)
    if len(shape) == 2:
        shape = (1, *shape)
    return {
        "name": "lenet-5", "input": list(shape), "classes": request.classes or 10,
        "activation": request.activation, "dropout": request.dropout,
    }  # fmt: skip


def make_lenet_5(spec: Mapping[str, Any]) -> nn.Sequential:
    """Two 5x5 convolutions (6 and 16 maps), each pooled by 2, then Linear layers of 120, 84 and ``classes``.

    Images of 28x28 pixels are padded by 2, so that both sizes reach the Linear layers as 16 maps of 5x5.
    """
    check_fields(spec, ("input", "classes", "activation", "dropout"))
    channels, height, width = (*check_sizes(spec, "input", at_least=1), 0, 0, 0)[:3]
    if len(spec["input"]) != 3 or channels not in (1, 3) or (height, width) not in ((28, 28), (32, 32)):
        raise InputError(
            f"lenet-5 takes images of 28x28 or 32x32 pixels with 1 or 3 channels, but the input is "
            f"{'x'.join(map(str, spec['input']))}: take an mlp instead"
        )
    classes = check_sizes({"name": "lenet-5", "classes": [spec["classes"]]}, "classes", at_least=1)[0]
    dropout = check_probability(spec["dropout"])
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (n_in, n_out, padding) in enumerate(
        ((channels, 6, 2 if height == 28 else 0), (6, 16, 0)), start=1
    ):
        layers[f"conv{i}"] = nn.Conv2d(n_in, n_out, 5, padding=padding)
        layers[f"activation{i}"] = activation(spec["activation"])
        layers[f"pool{i}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    for i, (n_in, n_out) in enumerate(((400, 120), (120, 84), (84, classes)), start=1):
        layers[f"fc{i}"] = nn.Linear(n_in, n_out)
        if i < 3:
            layers[f"activation{i + 2}"] = activation(spec["activation"])
            if dropout > 0:
                layers[f"dropout{i}"] = nn.Dropout(dropout)
    return nn.Sequential(layers)
