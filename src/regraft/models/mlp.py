"""Multilayer perceptrons: Linear layers with an activation, and dropout if asked, in between."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import nn

from regraft.errors import InputError
from regraft.models.parts import activation
from regraft.models.spec import Request, check_fields, check_probability, check_sizes, number_of


def parse_mlp(argument: str, request: Request) -> dict[str, Any]:
    """``784-300-10``: the sizes from input to output; ``in`` and ``classes`` are filled in from the data."""
    words = argument.lower().split("-") if argument else ["in", "256", "256", "classes"]
    filled = {"in": request.inputs, "classes": request.classes}
    sizes: list[int] = []
    for word in words:
        size = filled[word] if word in filled else number_of(word)
        if word in filled and size is None:
            raise InputError(
                f"the model 'mlp:{argument}' says '{word}', but no data was given: write the number"
            )
        if size is None or size < 1:
            raise InputError(
                f"the model 'mlp:{argument}' has the size {word!r}, but sizes are positive integers joined "
                "by '-', input first, as in mlp:784-300-100-10 (or mlp:in-300-100-classes)"
            )
        sizes.append(size)
    if len(sizes) < 2:
        raise InputError(
            f"the model 'mlp:{argument}' has {len(sizes)} size: give at least the input and the output size, "
            "as in mlp:784-300-100-10"
        )
    return _spec(f"mlp:{argument}", sizes, request)


def parse_lenet_300_100(argument: str, request: Request) -> dict[str, Any]:
    """LeNet-300-100 (LeCun et al. 1998, section III): an MLP; 784 inputs and 10 classes without data."""
    request.refuse_argument("lenet-300-100", argument)
    return _spec("lenet-300-100", [request.inputs or 784, 300, 100, request.classes or 10], request)


def _spec(name: str, sizes: list[int], request: Request) -> dict[str, Any]:
    request.check_ends(name, sizes[0], sizes[-1])
    return {"name": "mlp", "sizes": sizes, "activation": request.activation, "dropout": request.dropout}


def make_mlp(spec: Mapping[str, Any]) -> nn.Sequential:
    """Layers ``flatten``, ``fc1``, ``activation1``, ``dropout1``, ..., the last ``fc``.

    Dropout modules are there only where the probability is positive; the names of the weights stay the same.
    """
    check_fields(spec, ("sizes", "activation", "dropout"))
    sizes = check_sizes(spec, "sizes", at_least=2)
    dropout = check_probability(spec["dropout"])
    activation(spec["activation"])  # an unknown one is refused even where there is no hidden layer
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes), start=1):
        layers[f"fc{i}"] = nn.Linear(n_in, n_out)
        if i < len(sizes) - 1:
            layers[f"activation{i}"] = activation(spec["activation"])
            if dropout > 0:
                layers[f"dropout{i}"] = nn.Dropout(dropout)
    return nn.Sequential(layers)
