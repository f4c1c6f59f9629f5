"""A network as a chain of layers, each of which reads what the one before makes."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from regraft.errors import InputError
from regraft.graph import Graph, Group, take


@dataclass(frozen=True)
class Link:
    """A layer that reads one group of hidden units and makes the next one, or the output.

    Attributes:
        reads: the group that it reads.
        layer: its module's name.
        makes: name of the group that it makes.
        hidden: whether that is a group of hidden units, and not the output.
    """

    reads: Group
    layer: str
    makes: str
    hidden: bool


def chain(graph: Graph) -> tuple[str, list[Link]]:
    """The module that makes the first hidden group, and the links from there to the output.

    >>> from regraft.graph import trace
    >>> first, links = chain(trace(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))))
    >>> first, [(link.reads.name, link.layer, link.makes, link.hidden) for link in links]
    ('0', [('0', '2', '2', False)])

    Raises:
        InputError: the layers are no chain (residual streams, branches), or there is no hidden one.
    """
    makers = {slot.module: group for group in graph for slot in group.of_kind("make")}
    found = []
    for group in graph.free:
        made_by, read_by = group.of_kind("make", "through"), group.of_kind("read")
        if len(made_by) != 1 or len(read_by) != 1 or read_by[0].module not in makers:
            raise InputError(
                f"the greedy strategy goes from layer to layer, but the units of '{group.name}' are made by "
                f"{len(made_by)} tensors and read by {len(read_by)}: take gates.merge, which knows residual "
                "streams and branches"
            )
        layer = read_by[0].module
        found.append(Link(group, layer, makers[layer].name, makers[layer].fixed is None))
    if not found:
        raise InputError("the greedy strategy needs a network with hidden units")
    return found[0].reads.of_kind("make")[0].module, found


def reader_alone(
    model: nn.Module, graph: Graph, link: Link, targets: Tensor | None
) -> tuple[nn.Module, Graph]:
    """A copy of the layer as a network of its own, with only the units ``targets`` of what it makes, and the
    group that it reads as its only group."""
    cut = model if targets is None else take(model, graph, {link.makes: targets})
    slot = replace(link.reads.of_kind("read")[0], tensor="0.weight")
    alone = nn.Sequential(deepcopy(cut.get_submodule(link.layer)))
    return alone, Graph((replace(link.reads, slots=(slot,)),), ())


@torch.no_grad()
def seen(
    model: nn.Module, layer: str, batches: Iterable[tuple[Tensor, Tensor]]
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """What goes into a layer and what comes out of it, in evaluation mode, and the target, batch by batch."""
    kept: list[tuple[Tensor, Tensor]] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        kept.append((inputs[0].detach(), output.detach()))

    device = next(model.parameters()).device
    modes = [(m, m.training) for m in model.modules()]
    hook = model.get_submodule(layer).register_forward_hook(keep)
    model.eval()
    found = []
    try:
        for x, y in batches:
            model(x.to(device))
            found.append((*kept.pop(), y))
    finally:
        hook.remove()
        for module, training in modes:
            module.training = training
    return found
