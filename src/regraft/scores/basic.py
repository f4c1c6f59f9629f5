"""The scores that need no signal: magnitude, and random as the control."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regraft.probe import Probe
from regraft.scores.protocol import Vectors, weights_of


@torch.no_grad()
def magnitude(
    model: nn.Module,
    probe: Probe | None = None,
    *,
    values: Vectors | None = None,
    active: Vectors | None = None,
) -> dict[str, Tensor]:
    """``|w|`` of each connection (Han et al. 2015, arXiv:1506.02626). The probe is not used, nor is
    ``active``: a pruned connection has the magnitude that it would come back with.

    >>> from regraft import SparseLinear, SparseWeight
    >>> model = SparseLinear(SparseWeight((1, 3), torch.tensor([0, 2]), torch.tensor([0.5, -2.0])), None)
    >>> magnitude(model)["weight"].tolist()
    [0.5, 2.0]

    Raises:
        InputError: the model has no sparse weight.
    """
    return {n: (w.values if values is None else values[n]).abs() for n, w in weights_of(model).items()}


def random(
    model: nn.Module,
    probe: Probe | None = None,
    *,
    values: Vectors | None = None,
    active: Vectors | None = None,
) -> dict[str, Tensor]:
    """A uniform number in [0, 1) for each connection, from ``probe.generator``: the control that every
    comparison of scores needs.

    Raises:
        InputError: the probe has no generator; the model has no sparse weight.
    """
    generator = (probe or Probe()).require_generator("the random score")
    return {
        name: torch.rand(w.nnz, generator=generator, device=generator.device).to(w.index.device)
        for name, w in weights_of(model).items()
    }
