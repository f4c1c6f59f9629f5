"""Norm clipping and Gaussian noise: what one client can change is bounded, and hidden in noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from regraft import positions
from regraft.errors import InputError
from regraft.federated.update import Entries, Update, parts_of


def check(clip: float | None, noise: float) -> None:
    """Raise InputError unless the bound is positive, and given where there is noise."""
    if clip is not None and not (math.isfinite(clip) and clip > 0):
        raise InputError(f"clip is {clip!r}, but must be a positive norm, or None for no bound")
    if not (math.isfinite(noise) and noise >= 0):
        raise InputError(f"noise is {noise!r}, but must be 0 or more times the clip")
    if noise and clip is None:
        raise InputError("noise is a multiple of the clip: give clip= too")


@torch.no_grad()
def clipped(update: Update, model: nn.Module, clip: float) -> Update:
    """The update moved towards the model until its distance is at most ``clip``: model + min(1, clip / d) *
    (update - model), where d is the Euclidean norm over all parameters (McMahan et al. 2018,
    arXiv:1710.06963, section 2). Buffers, such as running statistics, stay as they are.

    Where it is moved, its connections are the union of its own and the model's.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = model.weight.data.zero_()
    >>> far = Update(0, "a", 1, {}, {"weight": torch.tensor([[3.0, 4.0]])})
    >>> clipped(far, model, 1.0).dense["weight"]
    tensor([[0.6000, 0.8000]])
    """
    layers, dense = parts_of(model)
    trained = {name for name, _ in model.named_parameters()}
    sparse = {name: _both(update.layers[name], entries) for name, entries in layers.items()}
    dense = {n: t.detach().cpu() for n, t in dense.items() if n in trained and t.is_floating_point()}
    squares = [(new - old).double().square().sum() for _, new, old in sparse.values()]
    squares += [(update.dense[n] - t).double().square().sum() for n, t in dense.items()]
    distance = float(torch.stack(squares).sum().sqrt())
    if distance <= clip:
        return update
    share = clip / distance
    return Update(
        update.round, update.client, update.examples,
        {n: Entries(index, old + share * (new - old)) for n, (index, new, old) in sparse.items()},
        {n: dense[n] + share * (t - dense[n]) if n in dense else t for n, t in update.dense.items()},
        update.statistics,
    )  # fmt: skip


def _both(new: Entries, old: Entries) -> tuple[Tensor, Tensor, Tensor]:
    """Positions of either, and both vectors of values there, 0 where absent."""
    union = positions.union(new.index, old.index.cpu())
    found = []
    for entries in (new, old):
        values = torch.zeros(union.numel(), dtype=entries.values.dtype)
        values[torch.searchsorted(union, entries.index.cpu())] = entries.values.detach().cpu()
        found.append(values)
    return union, found[0], found[1]


@torch.no_grad()
def add_noise(model: nn.Module, std: float, generator: torch.Generator) -> None:
    """Add independent Gaussian noise to every parameter, in place; of sparse weights to the connections only:
    which connections there are is not hidden by it."""
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
        parameter.add_(noise.to(parameter), alpha=std)
