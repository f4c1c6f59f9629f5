"""Batch normalisation after a merge: its running statistics, measured anew."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from regraft.errors import InputError
from regraft.merging.moments import Batches, Moments, inputs_of, pooled

M = TypeVar("M", bound=nn.Module)


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """The model's batch normalisations that keep running statistics, by module name."""
    found = {n: m for n, m in model.named_modules() if isinstance(m, _BatchNorm)}
    return {n: m for n, m in found.items() if m.running_mean is not None}


@torch.no_grad()
def reestimate_norms(model: M, batches: Batches) -> M:
    """A copy of a model whose batch normalisations have the running statistics of these batches.

    The statistics of a merged network are its parents' average, which is not how its own activations are
    spread. Here each becomes the mean and the unbiased variance of everything that arrives at the layer when
    the batches pass, all batches together and without momentum. The layers are taken in the order in which
    the model calls them, and one that comes later sees the new statistics of those before it: in evaluation
    each then normalises these batches exactly. That takes one pass over the batches for each of them, which
    stops there.

    Args:
        model: dense or sparse; left as it was.
        batches: inputs ``[n, ...]``, or pairs of inputs and labels, as a loader gives them.

    >>> model = nn.Sequential(nn.BatchNorm1d(1))
    >>> new = reestimate_norms(model, [torch.tensor([[1.0], [2.0]]), torch.tensor([[6.0]])])
    >>> new[0].running_mean.item(), new[0].running_var.item(), model[0].running_mean.item()
    (3.0, 7.0, 0.0)

    Raises:
        InputError: no batch normalisation that keeps statistics, no batch, a single number for a unit, or
            samples or activations that are NaN or infinite.
        MismatchError: the model does not take the batches.
    """
    if not batch_norms(model):
        raise InputError(
            f"the {type(model).__name__} has no batch normalisation with running statistics, so there is "
            "nothing to re-estimate: leave it as it is, or use repair"
        )
    inputs = inputs_of(batches, "re-estimating batch normalisation")
    network = copy.deepcopy(model)
    norms = batch_norms(network)
    for name in pooled(network, norms, inputs[:1]):
        set_statistics(name, norms[name], pooled(network, [name], inputs)[name], len(inputs))
    return network


def set_statistics(name: str, norm: _BatchNorm, moments: Moments, batches: int) -> None:
    """Give a batch normalisation these running statistics, as seen in so many batches.

    Raises:
        InputError: a single number for a unit, which has no variance.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    if moments.count < 2:
        raise InputError(f"'{name}' sees one number for each unit, which has no variance: pass more samples")
    norm.running_mean.copy_(moments.mean)
    norm.running_var.copy_(moments.variance(unbiased=True))
    norm.num_batches_tracked.fill_(batches)
