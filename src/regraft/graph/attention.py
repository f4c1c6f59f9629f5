"""How the units pass through attention, which puts them into heads."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from regraft.graph import spaces
from regraft.graph.follow import Walk, shape_of
from regraft.graph.groups import Heads
from regraft.graph.spaces import Block, Space


def attended(walk: Walk, node: fx.Node) -> Space:
    """What ``F.scaled_dot_product_attention`` gives: units of the values, head by head.

    Raises:
        InputError: units that are not where attention looks for them, heads that several queries share.
    """
    name = "scaled_dot_product_attention"
    given = [node.args[i] if len(node.args) > i else node.kwargs.get(key)
             for i, key in enumerate(("query", "key", "value"))]  # fmt: skip
    query, key, value = (walk.space(argument, name) for argument in given)
    sizes = [shape_of(argument) for argument in given]
    ahead = len(sizes[0]) - 3
    if all(s.segments is None or (s.inner is None and s.axis == ahead + 2) for s in (query, key, value)):
        walk.attend(query, key, value, 1, name)  # one head, in no axis of its own
        return walk.noted(value, name)
    if any(s.segments is not None and (s.axis, s.inner) != (ahead, ahead + 2) for s in (query, key, value)):
        raise walk.lost(name, "it expects [batch, heads, positions, units of a head]")
    if len({size[ahead] for size in sizes}) > 1:
        raise walk.lost(name, "several heads of queries share one of keys")
    walk.attend(query, key, value, sizes[0][ahead], name)
    return walk.noted(value, name)


def multihead(walk: Walk, node: fx.Node, module: Any, space: Space, before: tuple[int, ...]) -> Any:
    """``nn.MultiheadAttention``, as one layer: (output, weights), of which the weights have no units."""
    where = str(node.target)
    given = [node.args[i] if len(node.args) > i else node.kwargs.get(key)
             for i, key in enumerate(("query", "key", "value"))]  # fmt: skip
    inputs = [walk.space(argument, where) for argument in given]
    return (_multihead(walk, where, module, inputs, len(before) - 1), None)


def encoder_layer(walk: Walk, node: fx.Node, module: Any, space: Space, before: tuple[int, ...]) -> Space:
    """``nn.TransformerEncoderLayer``, as one layer: all of it writes to one stream."""
    return _encoder_layer(walk, str(node.target), module, _last(walk, node, space, before))


def encoder(walk: Walk, node: fx.Node, module: Any, space: Space, before: tuple[int, ...]) -> Space:
    """``nn.TransformerEncoder``: its layers, and its norm, if it has one."""
    space, where = _last(walk, node, space, before), str(node.target)
    for number, layer in enumerate(module.layers):
        space = _encoder_layer(walk, f"{where}.layers.{number}", layer, space)
    return space if module.norm is None else _norm(walk, f"{where}.norm", module.norm, space)


def heads_of(walk: Walk) -> dict[Block, Heads]:
    """The heads that the blocks which stand in the end make.

    Raises:
        InputError: units of heads that are tied to others of the network in a way that no group can have.
    """
    found: dict[Block, tuple[int, int]] = {}
    for number, (met, value, count, where) in enumerate(walk.attentions):
        blocks = [_one_block(walk, space, count, where) for space in (met, value)]
        if count == 1:
            continue
        known = {found[b] for b in blocks if b is not None and b in found}
        if any(others != count for _, others in known):
            raise walk.lost(where, "its units make other heads elsewhere")
        for block in blocks:
            if block is not None:
                found[block] = (number, count)
        for block, entry in found.items():
            if entry in known:
                found[block] = (number, count)
    names = {number: block.name for block, (number, _) in reversed(found.items())}
    for block, (number, _) in found.items():
        if any(b.fixed for b, (n, _) in found.items() if n == number):
            block.fixed = block.fixed or "their heads are the network's input or output"
    return {block: Heads(names[number], count) for block, (number, count) in found.items()}


def _one_block(walk: Walk, space: Space, count: int, where: str) -> Block | None:
    if space.segments is None:
        return None
    segments = spaces.resolve(space.segments)
    if count > 1 and (len(segments) != 1 or segments[0][1] != 1 or segments[0][0].units % count):
        raise walk.lost(where, "the units of its heads belong to several groups")
    return segments[0][0]


def _last(walk: Walk, node: fx.Node, space: Space, before: tuple[int, ...]) -> Space:
    if space.segments is not None and space.axis != len(before) - 1:
        raise walk.lost(str(node.target), "its units are not along the last axis")
    return space.at(len(before) - 1)


def _multihead(walk: Walk, where: str, module: Any, inputs: list[Space], axis: int) -> Space:
    if module.in_proj_weight is None or module.bias_k is not None or module.add_zero_attn:
        raise walk.lost(where, "keys and values of other widths, or of its own, are not known here")
    weight = module.in_proj_weight
    for space in inputs:
        walk.attach(space, weight, 1, "read")
    made = walk.make(weight, 0, where)
    walk.attach(made, module.in_proj_bias, 0, "bias")
    third = weight.shape[0] // 3
    query, key, value = (spaces.part(made, i * third, (i + 1) * third) for i in range(3))
    walk.attend(query, key, value, module.num_heads, where)
    walk.attach(value, module.out_proj.weight, 1, "read")
    out = walk.make(module.out_proj.weight, 0, f"{where}.out_proj")
    walk.attach(out, module.out_proj.bias, 0, "bias")
    return out.at(axis)


def _encoder_layer(walk: Walk, where: str, module: Any, space: Space) -> Space:
    for name in ("norm1", "norm2"):
        space = _norm(walk, f"{where}.{name}", getattr(module, name), space)
    seen = _multihead(walk, f"{where}.self_attn", module.self_attn, [space], space.axis)
    stream = spaces.join(space, seen)
    walk.attach(stream, module.linear1.weight, 1, "read")
    hidden = walk.make(module.linear1.weight, 0, f"{where}.linear1")
    walk.attach(hidden, module.linear1.bias, 0, "bias")
    walk.noted(hidden, getattr(module.activation, "__name__", type(module.activation).__name__.lower()))
    walk.attach(hidden, module.linear2.weight, 1, "read")
    out = walk.make(module.linear2.weight, 0, f"{where}.linear2")
    walk.attach(out, module.linear2.bias, 0, "bias")
    return spaces.join(stream, out).at(space.axis)


def _norm(walk: Walk, where: str, module: nn.Module, space: Space) -> Space:
    if not isinstance(module, nn.LayerNorm):
        raise walk.lost(where, f"nothing is known about a {type(module).__name__} there")
    for tensor in (module.weight, module.bias):
        walk.attach(space, tensor, 0, "norm")
    return walk.mixed(space, where)
