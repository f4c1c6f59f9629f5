"""``Ensemble``: the mean of several networks' outputs, what a merge of them is measured against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from regraft.errors import InputError


class Ensemble(nn.Module):
    """The mean of the outputs (logits) of networks of any architectures: N times the weights and the time.

    The networks are held, not copied.

    >>> a, b = nn.Linear(3, 2), nn.Linear(3, 2)
    >>> x = torch.randn(5, 3)
    >>> torch.allclose(Ensemble([a, b])(x), (a(x) + b(x)) / 2)
    True

    Raises:
        InputError: no network.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        if isinstance(networks, nn.Module) or not networks:
            raise InputError("an ensemble needs a list of at least one network: Ensemble([a, b])")
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([network(x) for network in self.networks]).mean(0)
