"""From a short name or a spec to a module."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from regraft.errors import InputError, unknown
from regraft.models.lenet import make_lenet_5, parse_lenet_5
from regraft.models.mlp import make_mlp, parse_lenet_300_100, parse_mlp
from regraft.models.parts import ACTIVATIONS, initialise
from regraft.models.resnet import make_resnet, make_wide_resnet, parse_resnet, parse_wide_resnet
from regraft.models.spec import Request
from regraft.models.transformer import make_gpt, make_vit, parse_gpt, parse_vit


class Family(NamedTuple):
    """How a short name becomes a spec, and how a spec becomes a module (on any device, values not drawn)."""

    parse: Callable[[str, Request], dict[str, Any]]
    make: Callable[[Mapping[str, Any]], nn.Module]
    example: str


MODELS: dict[str, Family] = {
    "mlp": Family(parse_mlp, make_mlp, "mlp:784-1000-1000-1000-10"),
    "lenet-300-100": Family(parse_lenet_300_100, make_mlp, "lenet-300-100"),
    "lenet-5": Family(parse_lenet_5, make_lenet_5, "lenet-5"),
    "resnet": Family(parse_resnet, make_resnet, "resnet-20"),
    "wrn": Family(parse_wide_resnet, make_wide_resnet, "wrn-16-2"),
    "gpt": Family(parse_gpt, make_gpt, "gpt:2-64-4"),
    "vit": Family(parse_vit, make_vit, "vit:2-64-4-4"),
}

_DASHED = re.compile(r"^(resnet|wrn|gpt|vit)-(?=\d)")  # resnet-20 is short for resnet:20


def resolve(
    name: str,
    *,
    input_shape: Sequence[int] | None = None,
    classes: int | None = None,
    dropout: float = 0.0,
    activation: str = "relu",
) -> dict[str, Any]:
    """The spec, a plain dict, that a short name stands for; sizes that it leaves open come from the data.

    Args:
        name: ``"mlp:784-300-10"`` (``in`` and ``classes`` stand for the data's), ``"lenet-300-100"``,
            ``"lenet-5"``, ``"resnet-20"`` (also ``"resnet:20"``: layers), ``"wrn-16-2"`` (layers, width),
            ``"gpt:2-64-4"`` (layers, width, heads) or ``"vit:2-64-4-4"`` (and the side of a patch).
        input_shape: shape of one sample.
        classes: number of classes.
        dropout: probability in [0, 1) that a hidden unit is dropped while training.
        activation: a name in ``ACTIVATIONS``.

    >>> resolve("mlp:in-32-classes", input_shape=(1, 8, 8), classes=10)["sizes"]
    [64, 32, 10]

    Raises:
        InputError: unknown or ill-formed name, unknown activation, dropout out of range.
        MismatchError: the model does not fit ``input_shape`` or ``classes``.
    """
    if activation not in ACTIVATIONS:
        raise unknown("activation", activation, ACTIVATIONS)
    family, _, argument = _DASHED.sub(r"\1:", name.strip()).partition(":")
    if family not in MODELS:
        error = unknown("model", family, MODELS)
        examples = ", ".join(f"'{f.example}'" for f in MODELS.values())
        raise InputError(f"{error} (as in {examples})")
    shape = None if input_shape is None else tuple(input_shape)
    return MODELS[family].parse(argument, Request(shape, classes, dropout, activation))


def build(
    spec: str | Mapping[str, Any],
    *,
    input_shape: Sequence[int] | None = None,
    classes: int | None = None,
    dropout: float = 0.0,
    activation: str = "relu",
    init: str = "he",
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """A model by its short name or its spec, with new values. Its attribute ``spec`` is the plain dict that
    builds it again.

    Args:
        spec: a short name, to which the four options of ``resolve`` apply, or a spec, which has them already.
        init: ``"he"`` or ``"torch"``; see ``initialise``.
        generator: a CPU one; the same seed gives the same values. Torch's global generator is left alone,
            unless none is passed.
        device: where the values live; ``"meta"`` for none at all.

    >>> model = build("mlp:20-30-5", dropout=0.1, generator=torch.Generator().manual_seed(0))
    >>> model(torch.zeros(4, 20)).shape, model.spec["sizes"]
    (torch.Size([4, 5]), [20, 30, 5])

    Raises:
        InputError: unknown or ill-formed name or spec, unknown option, dropout out of range.
        MismatchError: the model does not fit ``input_shape`` or ``classes``.
    """
    if isinstance(spec, str):
        plain = resolve(
            spec, input_shape=input_shape, classes=classes, dropout=dropout, activation=activation
        )
    else:
        plain = dict(spec)
    name = plain.get("name")
    if not isinstance(name, str) or name not in MODELS:
        raise unknown("model", name, MODELS)
    try:
        with torch.device("meta"):
            model = MODELS[name].make(plain)
    except RuntimeError as error:  # more values than a tensor can have
        raise InputError(f"the model '{name}' cannot be made of {plain}: {error}") from error
    if torch.device(device).type != "meta":
        model.to_empty(device="cpu")  # drawn there, so that every device starts with the same values
        initialise(model, init, activation=plain.get("activation", "relu"), generator=generator)
        model.to(device)
    setattr(model, "spec", plain)  # noqa: B010  (nn.Module's stubs know no such attribute)
    return model
