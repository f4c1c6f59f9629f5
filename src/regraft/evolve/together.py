"""Processes that train one model together (DistributedDataParallel) choose one topology."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from regraft.errors import InputError

Captured = Mapping[str, Sequence[tuple[Tensor, Tensor]]]


def processes() -> int:
    """How many processes torch.distributed knows of; 1 where it was not started."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def group_of(model: nn.Module, group: dist.ProcessGroup | None) -> dist.ProcessGroup | None:
    """The processes that train ``model``: those given, else the ones of its DistributedDataParallel wrapper.
    None where there is but one.

    Raises:
        InputError: this process is not in the group.
    """
    while group is None and isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
        model = inner
    if group is None and isinstance(model, nn.parallel.DistributedDataParallel):
        group = model.process_group
    if group is None or processes() == 1:
        return None
    rank = dist.get_rank(group)
    if rank < 0:
        raise InputError("this process is not in the group that trains the model: pass a group that it is in")
    return group if dist.get_world_size(group) > 1 else None


def decided(choice: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The vector ``choice`` of the group's first process, in all of them."""
    if group is None:
        return choice
    length = torch.tensor([choice.numel()], device=choice.device)
    first = dist.get_global_rank(group, 0)
    dist.broadcast(length, first, group)
    if dist.get_rank(group) != 0:
        choice = choice.new_empty(int(length))
    choice = choice.contiguous()
    dist.broadcast(choice, first, group)
    return choice


def gathered(
    captured: Captured, names: Iterable[str], group: dist.ProcessGroup | None
) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """What all processes captured, by weight name, in the order of the processes.

    The gradient that DistributedDataParallel hands to the optimizer is the mean over the processes, and a
    rule that adds up what was captured sees it, but for the factor that does not change its choice. What
    travels is as large as the layers' inputs and output gradients, not as the weights.
    """
    if group is None:
        return {name: list(kept) for name, kept in captured.items()}
    mine = {name: [(a.shape, b.shape) for a, b in captured.get(name, ())] for name in names}
    shapes: list[dict[str, list[tuple[torch.Size, torch.Size]]]] = [{}] * dist.get_world_size(group)
    dist.all_gather_object(shapes, mine, group)
    found = {}
    for name in mine:
        expected = [theirs[name] for theirs in shapes]
        if not any(expected):
            continue
        if not all(expected):
            raise InputError(
                f"only some processes have seen a gradient of '{name}': run the forward and backward pass of "
                "each process within `with evolver.watch():`, on the same steps"
            )
        kept = captured[name]
        sides = (
            _all_gather([pair[side] for pair in kept], [[pair[side] for pair in e] for e in expected], group)
            for side in (0, 1)
        )
        found[name] = list(zip(*sides, strict=True))
    return found


def _all_gather(mine: list[Tensor], shapes: list[list[torch.Size]], group: dist.ProcessGroup) -> list[Tensor]:
    """All processes' tensors of the given shapes, in one collective: flat, padded to the longest."""
    most = max(sum(shape.numel() for shape in theirs) for theirs in shapes)
    flat = mine[0].new_zeros(most)
    whole = torch.cat([t.reshape(-1) for t in mine])
    flat[: whole.numel()] = whole
    received = [torch.empty_like(flat) for _ in shapes]
    dist.all_gather(received, flat, group)
    tensors = []
    for vector, theirs in zip(received, shapes, strict=True):
        lengths = [shape.numel() for shape in theirs]
        pieces = torch.split(vector[: sum(lengths)], lengths)
        tensors += [piece.view(shape) for piece, shape in zip(pieces, theirs, strict=True)]
    return tensors
