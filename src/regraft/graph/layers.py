"""How the units pass through torch's layers and sparse layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import fx, nn

from regraft.graph import attention, spaces
from regraft.graph.follow import Known, Walk, reshaped, shape_of
from regraft.graph.spaces import Space
from regraft.layers import SparseLinear
from regraft.layers.modules import SparseConv
from regraft.models.resnet import Subsample

UNIT_BY_UNIT: tuple[type[nn.Module], ...] = (
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
    nn.FeatureAlphaDropout, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU,
    nn.SiLU, nn.Mish, nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid,
    nn.Hardshrink, nn.Softplus, nn.Softsign, nn.Softshrink, nn.Tanhshrink, nn.Threshold,
)  # fmt: skip
SPATIAL: tuple[type[nn.Module], ...] = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.LPPool1d,
    nn.LPPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.Upsample, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d,
    nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d, nn.ReflectionPad1d, nn.ReflectionPad2d,
    nn.ReflectionPad3d, nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d, nn.CircularPad1d,
    nn.CircularPad2d, nn.CircularPad3d,
)  # fmt: skip
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d,
                nn.InstanceNorm3d)  # fmt: skip


def through_layer(walk: Walk, node: fx.Node, module: nn.Module) -> Known:
    """The space of a layer's output, after noting which tensors lie along it.

    Raises:
        InputError: an unknown layer, or one that mixes units in a way that no group can have.
    """
    where = str(node.target)
    if isinstance(module, nn.Embedding):
        made = walk.make(module.weight, 1, where)
        return made.at(len(shape_of(node)) - 1)
    if not isinstance(module, nn.Dropout | nn.Identity):
        walk.check_whole(node, where)
    space = walk.space(node.args[0] if node.args else None, where)
    before = shape_of(node.args[0])
    rule = next((rule for types, rule in _RULES if isinstance(module, types)), None)
    if rule is None:
        raise walk.lost(where, f"nothing is known about a {type(module).__name__}")
    return rule(walk, node, module, space, before)


def _same(walk: Walk, node: fx.Node, module: Any, space: Space, before: tuple[int, ...]) -> Space:
    return walk.noted(space, type(module).__name__.lower())


def _spatial(walk: Walk, node: fx.Node, module: Any, space: Space, before: tuple[int, ...]) -> Space:
    if space.axis != 1 or len(before) < 3:
        raise walk.lost(str(node.target), "its maps are not the second axis")
    return walk.noted(space, type(module).__name__.lower())


def _linear(walk: Walk, node: fx.Node, module: Any, space: Space, before: tuple[int, ...]) -> Space:
    space = _on(space, len(before) - 1, walk, node)
    walk.attach(space, module.weight, 1, "read")
    made = walk.make(module.weight, 0, str(node.target)).at(len(shape_of(node)) - 1)
    walk.attach(made, module.bias, 0, "bias")
    return made


def _conv(walk: Walk, node: fx.Node, module: Any, space: Space, before: tuple[int, ...]) -> Space:
    space = _on(space, 1, walk, node)
    if module.groups == 1:
        walk.attach(space, module.weight, 1, "read")
        made = walk.make(module.weight, 0, str(node.target)).at(1)
        walk.attach(made, module.bias, 0, "bias")
        return made
    # a group of maps reads a group of maps: they move together, as one unit
    n_out, n_in = module.weight.shape[0] // module.groups, module.weight.shape[1]
    whole = walk.fresh(module.groups, str(node.target))
    made = whole.repeated(n_out).at(1)
    walk.attach(made, module.weight, 0, "through")
    walk.attach(made, module.bias, 0, "bias")
    spaces.join(space, whole.repeated(n_in))
    return made


def _batch_norm(walk: Walk, node: fx.Node, module: Any, space: Space, before: tuple[int, ...]) -> Space:
    space = _on(space, 1, walk, node)
    for tensor in (module.weight, module.bias):
        walk.attach(space, tensor, 0, "norm")
    for tensor in (module.running_mean, module.running_var):
        walk.attach(space, tensor, 0, "statistic")
    return walk.noted(space, type(module).__name__.lower())


def _layer_norm(walk: Walk, node: fx.Node, module: Any, space: Space, before: tuple[int, ...]) -> Space:
    axis = space.axis - (len(before) - len(module.normalized_shape))
    if axis < 0:
        return walk.noted(space, "layernorm")
    for tensor in (module.weight, module.bias):
        walk.attach(space, tensor, axis, "norm")
    return walk.mixed(space, str(node.target))


def _group_norm(walk: Walk, node: fx.Node, module: Any, space: Space, before: tuple[int, ...]) -> Space:
    if module.weight is None:
        raise walk.lost(str(node.target), "a GroupNorm without scale and shift does not show its maps")
    space = _on(space, 1, walk, node)
    whole = walk.fresh(module.num_groups, str(node.target))
    space = spaces.join(space, whole.repeated(module.num_channels // module.num_groups))
    for tensor in (module.weight, module.bias):
        walk.attach(space, tensor, 0, "norm")
    return walk.noted(space, "groupnorm")


def _prelu(walk: Walk, node: fx.Node, module: Any, space: Space, before: tuple[int, ...]) -> Space:
    if module.num_parameters > 1:
        space = _on(space, 1, walk, node)
        walk.attach(space, module.weight, 0, "bias")
    return walk.noted(space, "prelu")


def _softmax(walk: Walk, node: fx.Node, module: Any, space: Space, before: tuple[int, ...]) -> Space:
    if module.dim is None or module.dim % len(before) == space.axis:
        return walk.mixed(space, str(node.target))
    return walk.noted(space, type(module).__name__.lower())


def _flatten(walk: Walk, node: fx.Node, module: Any, space: Space, before: tuple[int, ...]) -> Space:
    found = reshaped(space, before, shape_of(node))
    if found is None:
        raise walk.lost(str(node.target), f"it turns {before[1:]} into {shape_of(node)[1:]} per sample")
    return found


def _subsample(walk: Walk, node: fx.Node, module: Subsample, space: Space, before: tuple[int, ...]) -> Space:
    start = module.more // 2
    wide = padded(walk, _on(space, 1, walk, node), start, module.more - start, str(node.target))
    if wide.segments is not None:
        walk.count(str(node.target) + ".more", (wide.segments[0], wide.segments[-1]))
    return wide


def padded(walk: Walk, space: Space, start: int, end: int, where: str) -> Space:
    """The space with units that are always zero before and behind it."""
    if space.segments is None:
        return space
    ends = [walk.fresh(n, where).segments if n else () for n in (start, end)]
    return replace(space, segments=(*(ends[0] or ()), *space.segments, *(ends[1] or ())))


def _on(space: Space, axis: int, walk: Walk, node: fx.Node) -> Space:
    """The space, which must be along this axis."""
    if space.segments is None:
        return space.at(axis)
    if space.axis != axis:
        raise walk.lost(str(node.target), f"its units are along axis {space.axis}, where {axis} was expected")
    return space


_Rule = Callable[[Walk, fx.Node, Any, Space, tuple[int, ...]], Known]
_RULES: tuple[tuple[tuple[type[nn.Module], ...], _Rule], ...] = (
    ((nn.Linear, SparseLinear), _linear),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d, SparseConv), _conv),
    (_BATCH_NORMS, _batch_norm),
    ((nn.LayerNorm,), _layer_norm),
    ((nn.MultiheadAttention,), attention.multihead),
    ((nn.TransformerEncoderLayer,), attention.encoder_layer),
    ((nn.TransformerEncoder,), attention.encoder),
    ((nn.GroupNorm,), _group_norm),
    ((nn.PReLU,), _prelu),
    ((nn.Softmax, nn.LogSoftmax, nn.Softmin), _softmax),
    ((nn.Flatten, nn.Unflatten), _flatten),
    ((Subsample,), _subsample),
    (UNIT_BY_UNIT, _same),
    (SPATIAL, _spatial),
)
