"""``trace``: a model's groups, found by following its units from layer to layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import fx, nn

from regraft.errors import InputError
from regraft.graph import attention, spaces
from regraft.graph.calls import through_call
from regraft.graph.follow import Walk, input_space, is_parameter, shape_of
from regraft.graph.groups import Graph, Group, Slot
from regraft.graph.layers import through_layer
from regraft.graph.spaces import Space
from regraft.graph.tracing import sample_shape, traced
from regraft.models.resnet import Subsample


def trace(model: nn.Module, input_shape: Sequence[int] | None = None) -> Graph:
    """The groups of units that must be moved, gated or cut together.

    Linear and convolutional layers, dense or sparse, make new units; activations, pooling, dropout and
    normalisation pass them on; additions join two groups into one (a residual stream is one group);
    flattening repeats each unit over its positions; concatenations and slices put groups in a row. In a
    grouped convolution each group of maps is one unit. Attention by ``F.scaled_dot_product_attention``,
    ``nn.MultiheadAttention`` and ``nn.TransformerEncoder`` puts units into heads (see ``Heads``).

    Args:
        model: any module that torch.fx can trace, of one input and one output. It is not changed.
        input_shape: shape of one sample; default: what the model's ``spec`` or its first Linear layer says.

    >>> model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    >>> for group in trace(model, (1, 4, 4)):
    ...     print(group.name, group.units, group.fixed)
    0 3 None
    3 2 they are the network's output
    >>> [(s.tensor, s.axis, s.kind, s.repeat) for s in trace(model, (1, 4, 4))["0"].slots]
    [('0.weight', 0, 'make', 1), ('0.bias', 0, 'bias', 1), ('3.weight', 1, 'read', 4)]

    Raises:
        InputError: the model cannot be traced, or does something with its units that no group can describe;
            state the groups by hand then.
        MismatchError: the model does not take samples of ``input_shape``.
    """
    shape = sample_shape(model, input_shape)
    module = traced(model, shape, leaves=(Subsample,), purpose="be followed")
    walk = Walk(model)
    modules = dict(module.named_modules())
    for node in module.graph.nodes:
        walk.order += 1
        try:
            _visit(walk, node, modules)
        except spaces.NoGroup as error:
            raise walk.lost(str(node.target), str(error)) from None
    return Graph(_groups(walk), shape)


def _visit(walk: Walk, node: fx.Node, modules: dict[str, nn.Module]) -> None:
    if node.op == "placeholder":
        walk.known[node] = input_space(shape_of(node))
    elif node.op == "call_module":
        walk.known[node] = through_layer(walk, node, modules[str(node.target)])
    elif node.op == "get_attr":
        if is_parameter(walk.model, node) is None:
            walk.known[node] = None
    elif node.op == "output":
        result = node.args[0]
        found = walk.known.get(result) if isinstance(result, fx.Node) else None
        if not isinstance(found, Space):
            raise InputError(f"the {walk.label} must give one tensor for its units to be followed")
        walk.check_whole(node, "output")
        spaces.freeze(found, "they are the network's output")
    else:
        walk.known[node] = through_call(walk, node)


def _groups(walk: Walk) -> tuple[Group, ...]:
    """The blocks that stand in the end, as groups with names of their own."""
    blocks, heads = walk.blocks, attention.heads_of(walk)
    standing = dict.fromkeys(b for block in blocks for b, _ in spaces.resolve(((block, 1),)))
    used: Counter[str] = Counter()
    groups = []
    for block in sorted(standing, key=lambda b: b.first):
        slots = tuple(slot for _, slot in sorted(block.slots, key=lambda pair: pair[0]))
        if not slots or (block.fixed and all(slot.kind == "read" for slot in slots)):
            continue  # zeros that nobody reads; entries of the network's own input
        name = _name(slots) or block.name
        used[name] += 1
        if used[name] > 1:
            name = f"{name}#{used[name]}"
        groups.append(
            Group(
                name,
                block.units,
                slots,
                block.fixed,
                tuple(block.mixed_by),
                tuple(block.operations),
                heads.get(block),
            )
        )
    return tuple(groups)


def _name(slots: tuple[Slot, ...]) -> str:
    """The first layer that makes the units."""
    return next((slot.module for slot in slots if slot.kind in ("make", "through")), "")
