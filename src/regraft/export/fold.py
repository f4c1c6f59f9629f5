"""Batch normalisation folded into the layer before it: the same function, and the same connections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from regraft.export.program import Step, Weight


def fold_scales(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Multiply each ``scale`` step into the layer whose output only it takes.

    a * (W x + b) + c = (a W) x + (a b + c), per output unit.
    """
    users: dict[int, int] = {}
    for step in steps:
        for value in step.inputs:
            users[value] = users.get(value, 0) + 1
    kept: list[Step] = []
    for step in steps:
        at = next((i for i, s in enumerate(kept) if s.output == step.inputs[0]), None)
        if step.op == "scale" and at is not None and users[step.inputs[0]] == 1 and _can(kept[at]):
            kept[at] = _scaled(kept[at], step)
        else:
            kept.append(step)
    return tuple(kept)


def _can(layer: Step) -> bool:
    return layer.op == "conv" or (layer.op == "linear" and len(layer.shape) == 1)


def _scaled(layer: Step, scale: Step) -> Step:
    weight = layer.weight
    assert weight is not None
    assert scale.factor is not None
    assert scale.bias is not None
    bias = np.zeros(weight.shape[0], np.float32) if layer.bias is None else layer.bias
    values = weight.values * scale.factor[weight.rows()]
    return replace(
        layer,
        output=scale.output,
        weight=Weight(weight.shape, weight.index, values),
        bias=bias * scale.factor + scale.bias,
    )
