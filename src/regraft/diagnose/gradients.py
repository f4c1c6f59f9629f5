"""Gradient flow: how strongly the loss pulls at the connections of a network before it is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from regraft import positions, signals
from regraft.probe import Probe
from regraft.prune import candidates
from regraft.topology import Topology


@dataclass(frozen=True)
class GradientFlow:
    """What ``gradient_flow`` finds.

    Attributes:
        norms: Euclidean norm of the gradient of each weight, over the connections counted.
        connections: how many were counted.
    """

    norms: dict[str, float]
    connections: int

    @property
    def norm(self) -> float:
        """Of all weights together."""
        return math.sqrt(sum(n * n for n in self.norms.values()))

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {"norm": self.norm, "connections": self.connections, "norms": dict(self.norms)}


def gradient_flow(model: nn.Module, probe: Probe, topology: Topology | None = None) -> GradientFlow:
    """Norm of the gradient of the loss with respect to the connections, as the model is.

    GraSP keeps what preserves it (Wang et al. 2020, arXiv:2002.07376); whether a pruned network has it tells
    if training can start. Compare it before a pruning and after.

    Args:
        probe: loss and batches.
        topology: count these connections only and let all others compute as 0, as if pruned; default: all
            that the model has.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(2, 1, bias=False))
    >>> batch = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0]])
    >>> found = gradient_flow(model, Probe(lambda y, t: (y - t).sum(), [batch]))
    >>> round(found.norm, 4), found.connections
    (5.0, 2)

    Raises:
        InputError: no loss or batches, a loss that is not one number, a model without prunable weights.
        MismatchError: batches or topology that do not fit the model.
    """
    copied, weights = candidates(model)
    active = None
    if topology is not None:
        Topology.of(copied).check_same_weights(topology)
        active = {
            n: positions.contains(topology[n].index.to(w.index.device), w.index) for n, w in weights.items()
        }
    gradient = signals.gradient(copied, probe, active=active)
    counted = gradient if active is None else {n: g[active[n]] for n, g in gradient.items()}
    return GradientFlow(
        {n: float(g.double().norm()) for n, g in counted.items()}, sum(g.numel() for g in counted.values())
    )
