"""Rules that a few wrong clients cannot move far: for ``SparseMerge(weights=..., biases=...)``.

They look at all values of a position at once, so the server holds all updates of the round.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regraft.errors import InputError


@dataclass(frozen=True)
class Median:
    """Coordinate-wise median over the clients that have the position (Yin et al. 2018, arXiv:1803.01498,
    definition 1); the mean of the two middle values where their number is even.

    >>> values = torch.tensor([[1.0, 1.0], [2.0, 0.0], [900.0, 3.0]])
    >>> present = torch.tensor([[True, True], [True, False], [True, True]])
    >>> Median()(values, present).tolist()
    [2.0, 2.0]
    """

    def __call__(self, values: Tensor, present: Tensor) -> Tensor:
        """Values and presence [N, m] -> [m]."""
        return _middle(values, present, (present.sum(0) - 1) // 2)


@dataclass(frozen=True)
class TrimmedMean:
    """Coordinate-wise mean without the largest and the smallest values of the clients that have the position
    (Yin et al. 2018, arXiv:1803.01498, definition 2).

    Attributes:
        share: of the present values, left out at each end, in [0, 0.5); rounded down.

    >>> values = torch.tensor([[1.0], [2.0], [3.0], [900.0], [-900.0]])
    >>> TrimmedMean(0.2)(values, torch.ones(5, 1, dtype=torch.bool)).item()
    2.0

    Raises:
        InputError: a share outside [0, 0.5).
    """

    share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.share < 0.5:
            raise InputError(f"share is {self.share!r}, but must be in [0, 0.5): it is left out at each end")

    def __call__(self, values: Tensor, present: Tensor) -> Tensor:
        """Values and presence [N, m] -> [m]."""
        return _middle(values, present, (present.sum(0) * self.share + 1e-9).floor().long())


def _middle(values: Tensor, present: Tensor, cut: Tensor) -> Tensor:
    """Mean of the present values without ``cut`` [m] at each end."""
    ordered = torch.where(present, values, torch.inf).sort(0).values
    rank = torch.arange(len(values))[:, None]
    inside = (rank >= cut) & (rank < present.sum(0) - cut)
    return torch.where(inside, ordered, 0.0).sum(0) / inside.sum(0)
