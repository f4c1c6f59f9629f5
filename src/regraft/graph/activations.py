"""``activations``: what each group's units say, as the layers that read them see it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from regraft.errors import InputError, MismatchError
from regraft.graph.groups import Graph, Group, Slot
from regraft.layers import SparseLinear
from regraft.signals.substitute import evaluation


@torch.no_grad()
def activations(model: nn.Module, graph: Graph, x: Tensor) -> dict[str, Tensor]:
    """The values of each group's units for a batch, after activation, normalisation and pooling.

    They are taken where the first layer reads them; queries and keys of attention, which no layer reads,
    where they are made, first all queries, then all keys. The model runs in evaluation mode.

    Args:
        graph: the model's groups; those that no layer reads and the outputs are left out, and so is what
            happens within ``nn.MultiheadAttention``.
        x: samples ``[n, ...]``.

    Returns:
        by group ``[n * positions, units]``, where maps have a value at each position; sample by sample, so
        that the same samples give networks of one architecture rows that line up.

    >>> from regraft.graph import trace
    >>> model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    >>> {name: values.shape for name, values in activations(model, trace(model, (1, 4, 4)),
    ...                                                     torch.zeros(5, 1, 4, 4)).items()}
    {'0': torch.Size([20, 3])}

    Raises:
        MismatchError: the model does not take such samples, or does not have the group's layers.
        InputError: no sample, or an activation that is NaN or infinite.
    """
    if len(x) == 0:
        raise InputError(f"a batch of shape {tuple(x.shape)} is empty: activations need samples")
    readers = {group.name: _reader(group) for group in graph if group.of_kind("read", "through")}
    seen: dict[str, Tensor] = {}
    hooks = []
    modules = dict(model.named_modules())
    made: dict[str, dict[str, Tensor]] = {}
    for group in graph.free:
        if group.heads is not None and group.name not in readers:
            for slot in group.of_kind("make"):
                module = modules.get(slot.module)
                if isinstance(module, nn.Linear | SparseLinear):
                    note = _noting(made.setdefault(group.name, {}), slot, group.units)
                    hooks.append(module.register_forward_hook(note))
    for name, slot in readers.items():
        if slot.module not in modules:
            raise MismatchError(
                f"the group '{name}' is read by '{slot.module}', which the model does not have: trace this "
                "model"
            )

        def look(module: nn.Module, args: tuple[Any, ...], name: str = name, slot: Slot = slot) -> None:
            if name not in seen:  # a layer that is used twice is looked at once
                seen[name] = _rows(module, args[0], slot, graph[name].units)

        hooks.append(modules[slot.module].register_forward_pre_hook(look))
    try:
        with evaluation(model), _module_by_module():
            model(x)
    except RuntimeError as error:
        raise MismatchError(
            f"the {type(model).__name__} does not take samples of shape {tuple(x.shape[1:])} "
            f"({str(error).splitlines()[0]})"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    seen |= {name: torch.cat(list(parts.values())) for name, parts in made.items() if parts}
    for name, values in seen.items():
        if not bool(torch.isfinite(values).all()):
            raise InputError(f"activations of '{name}' are NaN or infinite: the network has diverged")
    return seen


def _noting(parts: dict[str, Tensor], slot: Slot, units: int) -> Any:
    """A hook that keeps the units that a linear layer makes, one row for each sample and position."""

    def note(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        own = output[..., slot.offset : slot.offset + units]
        parts.setdefault(slot.tensor, own.reshape(-1, units))

    return note


@contextmanager
def _module_by_module() -> Iterator[None]:
    """Within the block ``nn.TransformerEncoder`` calls its layers, which it otherwise computes in one go."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _reader(group: Group) -> Slot:
    """The first slot that reads; a layer that reads blocks of maps only where there is no other."""
    return (*group.of_kind("read"), *group.of_kind("through"))[0]


def _rows(module: Any, x: Tensor, slot: Slot, units: int) -> Tensor:
    """The group's part of a layer's input, one row for each sample and position."""
    offset, repeat = slot.offset, slot.repeat
    if slot.kind == "through":  # the slot counts the maps that the layer makes
        n_out, n_in = module.weight.shape[0] // module.groups, module.weight.shape[1]
        offset, repeat = offset * n_in // n_out, repeat * n_in // n_out
    last = isinstance(module, nn.Linear | SparseLinear | nn.MultiheadAttention)
    x = x.reshape(-1, x.shape[-1], 1) if last else x.flatten(2)
    own = x[:, offset : offset + units * repeat]
    return own.view(len(x), units, repeat, -1).permute(0, 2, 3, 1).reshape(-1, units)
