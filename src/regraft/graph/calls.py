"""How the units pass through functions, operators and tensor methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from torch import fx

from regraft.graph import spaces
from regraft.graph.attention import attended
from regraft.graph.follow import Known, Walk, is_parameter, reshaped, shape_of
from regraft.graph.layers import padded
from regraft.graph.spaces import Space

_UNIT_BY_UNIT = {
    "relu", "relu_", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "sigmoid", "tanh",
    "hardtanh", "hardswish", "hardsigmoid", "softplus", "softsign", "logsigmoid", "dropout", "dropout1d",
    "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "clamp", "clamp_min", "clamp_max",
    "abs", "neg", "exp", "log", "sqrt", "square", "pow", "contiguous", "clone", "detach", "to", "float",
    "double", "half", "type_as", "long", "int",
}  # fmt: skip
_SPATIAL = {
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
    "adaptive_max_pool2d", "adaptive_max_pool3d", "boolean_dispatch", "interpolate",
}  # fmt: skip
_ELEMENTWISE = {
    "add",
    "sub",
    "mul",
    "truediv",
    "div",
    "iadd",
    "isub",
    "imul",
    "itruediv",
    "maximum",
    "minimum",
}
_RESHAPE = {"flatten", "unflatten", "view", "reshape", "squeeze", "unsqueeze", "ravel"}
_REDUCE = {"mean", "sum", "amax", "amin"}
_NO_ACTIVATION = {"size", "getattr", "dim", "shape", "floordiv", "len", "arange"}
_OF_HEADS = {"transpose", "swapaxes", "permute", "contiguous", "clone", "dropout"} | _RESHAPE


def through_call(walk: Walk, node: fx.Node) -> Known:
    """The space of what a function or a method gives.

    Raises:
        InputError: an unknown function, or one that mixes units in a way that no group can have.
    """
    name = _name(node)
    if name in _NO_ACTIVATION or ("shape" not in node.meta and "shapes" not in node.meta):
        return None
    if name == "scaled_dot_product_attention":
        return attended(walk, node)
    if name not in _OF_HEADS:
        walk.check_whole(node, name)
    if name == "getitem":
        return _getitem(walk, node)
    if name in _ELEMENTWISE:
        return _elementwise(walk, node, name)
    if name in ("cat", "concat"):
        return _cat(walk, node)
    space = walk.space(node.args[0] if node.args else None, name)
    before = shape_of(node.args[0])
    if name in _UNIT_BY_UNIT:
        return walk.noted(space, name.strip("_"))
    if name in _SPATIAL and space.axis == 1:
        return walk.noted(space, name)
    for names, rule in _RULES:
        if name in names:
            return rule(walk, node, space, before)
    raise walk.lost(name, "nothing is known about this function")


def _name(node: fx.Node) -> str:
    target: Any = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    return {"_adaptive_avg_pool2d": "adaptive_avg_pool2d", "_max_pool2d": "max_pool2d"}.get(name, name)


def _argument(node: fx.Node, at: int, name: str, default: Any = None) -> Any:
    return node.args[at] if len(node.args) > at else node.kwargs.get(name, default)


def _elementwise(walk: Walk, node: fx.Node, name: str) -> Space:
    """Sum, product, ... of two activations, or of one with a number or a parameter."""
    sides = [a for a in node.args[:2] if isinstance(walk.known.get(a), Space)]  # type: ignore[arg-type]
    if not sides:
        raise walk.lost(name, "it does not work on an activation of the network")
    space = walk.space(sides[0], name)
    if len(sides) == 2:
        other = walk.space(sides[1], name)
        first, second = shape_of(sides[0]), shape_of(sides[1])
        if len(first) - space.axis != len(second) - other.axis and None not in (
            space.segments,
            other.segments,
        ):
            raise walk.lost(name, f"the units of its two sides, {first} and {second}, are along other axes")
        wide = space if len(first) >= len(second) else other
        return walk.noted(spaces.join(space, other).at(wide.axis), name.removeprefix("i"))
    constant = next((a for a in node.args[:2] if a is not sides[0]), None)
    parameter = is_parameter(walk.model, constant)
    if parameter is None:
        times = name.removeprefix("i") in ("mul", "truediv", "div")
        return walk.noted(space, "scale" if times else f"{name} of a number")
    axis = space.axis - (len(shape_of(node)) - parameter.ndim)
    if axis >= 0 and parameter.shape[axis] > 1:
        walk.attach(space, parameter, axis, "bias")
    return walk.noted(space, f"{name.removeprefix('i')} of a parameter")


def _cat(walk: Walk, node: fx.Node) -> Space:
    tensors = _argument(node, 0, "tensors")
    parts = [walk.space(t, "cat") for t in tensors]
    axis = int(_argument(node, 1, "dim", 0)) % len(shape_of(node))
    if all(p.segments is None for p in parts):
        return parts[0].at(axis)
    if any(p.segments is None for p in parts) and any(p.axis == axis for p in parts):
        # entries of the input stay where they are: a block that cannot move stands for them
        for i, p in enumerate(parts):
            if p.segments is None:
                parts[i] = walk.fresh(shape_of(tensors[i])[axis], "input").at(axis)
                spaces.freeze(parts[i], "they are the network's input")
    if any(p.axis != parts[0].axis for p in parts):
        raise walk.lost("cat", "the units of its tensors are along different axes")
    if parts[0].axis != axis:
        joined = parts[0]
        for p in parts[1:]:
            joined = spaces.join(joined, p)
        return joined
    return Space(axis, tuple(s for p in parts for s in p.segments or ()))


def _getitem(walk: Walk, node: fx.Node) -> Known:
    """One of several tensors, or a slice of one."""
    known = walk.known.get(node.args[0])  # type: ignore[arg-type]
    index: Any = node.args[1]
    if isinstance(known, tuple):
        return known[int(index)]
    if not isinstance(known, Space):
        if is_parameter(walk.model, node.args[0]) is not None:
            raise walk.lost("getitem", "it takes a part of a parameter")
        return None
    taken = index if isinstance(index, tuple) else (index,)
    if known.segments is None:
        return known
    before = shape_of(node.args[0])
    if Ellipsis in taken:
        at = taken.index(Ellipsis)
        taken = (*taken[:at], *[slice(None)] * (len(before) - len(taken) + 1), *taken[at + 1 :])
    gone = 0
    for axis, item in enumerate(taken):
        if axis == known.axis:
            if not isinstance(item, slice) or item.step not in (None, 1):
                raise walk.lost("getitem", "it takes other than a row of units")
            start, stop, _ = item.indices(before[axis])
            known = spaces.part(known, start, stop) if (start, stop) != (0, before[axis]) else known
        elif not isinstance(item, slice | int):
            raise walk.lost("getitem", f"nothing is known about an index of type {type(item).__name__}")
        if isinstance(item, int):
            gone += axis < known.axis
    return known.at(known.axis - gone)


def _reshape(walk: Walk, node: fx.Node, space: Space, before: tuple[int, ...]) -> Space:
    found = reshaped(space, before, shape_of(node))
    if found is None:
        raise walk.lost(_name(node), f"it turns {before[1:]} into {shape_of(node)[1:]} per sample")
    return found


def _permute(walk: Walk, node: fx.Node, space: Space, before: tuple[int, ...]) -> Space:
    if _name(node) in ("transpose", "swapaxes"):
        order = list(range(len(before)))
        a, b = (int(_argument(node, i, f"dim{i - 1}")) % len(before) for i in (1, 2))
        order[a], order[b] = order[b], order[a]
    else:
        given = node.args[1:] if len(node.args) > 2 else _argument(node, 1, "dims")
        order = [int(axis) % len(before) for axis in cast("tuple[int, ...]", given)]
    inner = None if space.inner is None else order.index(space.inner)
    return space.at(order.index(space.axis), inner)


def _reduce(walk: Walk, node: fx.Node, space: Space, before: tuple[int, ...]) -> Space:
    given = _argument(node, 1, "dim")
    dims = range(len(before)) if given is None else [given] if isinstance(given, int) else given
    axes = {int(axis) % len(before) for axis in dims}
    if space.axis in axes and space.segments is not None:
        raise walk.lost(_name(node), "it reduces over the units themselves")
    kept = len(shape_of(node)) == len(before)
    return walk.noted(
        space.at(space.axis - (0 if kept else sum(axis < space.axis for axis in axes))), _name(node)
    )


def _split(walk: Walk, node: fx.Node, space: Space, before: tuple[int, ...]) -> Known:
    axis = int(_argument(node, 2, "dim", 0)) % len(before)
    shapes = node.meta["shapes"]
    if axis != space.axis:
        return tuple(space for _ in shapes)
    found, start = [], 0
    for shape in shapes:
        found.append(spaces.part(space, start, start + shape[axis]))
        start += shape[axis]
    return tuple(found)


def _pad(walk: Walk, node: fx.Node, space: Space, before: tuple[int, ...]) -> Space:
    amounts: Any = _argument(node, 1, "pad")
    at = 2 * (len(before) - 1 - space.axis)
    if len(amounts) <= at or not any(amounts[at : at + 2]):
        return space
    value = _argument(node, 3, "value")
    if value or min(amounts[at : at + 2]) < 0 or _argument(node, 2, "mode", "constant") != "constant":
        raise walk.lost("pad", "it adds other than zeros along the units")
    return padded(walk, space, int(amounts[at]), int(amounts[at + 1]), node.name)


def _softmax(walk: Walk, node: fx.Node, space: Space, before: tuple[int, ...]) -> Space:
    axis = _argument(node, 1, "dim")
    over = axis is None or int(axis) % len(before) == space.axis
    return walk.mixed(space, node.name) if over else walk.noted(space, _name(node))


_Rule = Callable[[Walk, fx.Node, Space, tuple[int, ...]], Known]
_RULES: tuple[tuple[set[str], _Rule], ...] = (
    (_RESHAPE, _reshape),
    ({"permute", "transpose", "swapaxes"}, _permute),
    (_REDUCE, _reduce),
    ({"chunk", "split"}, _split),
    ({"pad"}, _pad),
    ({"softmax", "log_softmax"}, _softmax),
)
