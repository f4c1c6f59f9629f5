"""``HardConcrete``: the distribution of a gate that can be open, closed, or anything in between."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from regraft.errors import InputError


@dataclass(frozen=True)
class HardConcrete:
    """A number in [0, 1] that is exactly 0 or exactly 1 with a probability above 0, and differentiable in its
    location log alpha (Louizos et al. 2017, arXiv:1712.01312, equations 10 to 13; thesis 2, section 1.2.1).

    Attributes:
        beta: temperature, in (0, 1]; towards 0 the gate becomes a coin that shows 0 or 1.
        gamma, zeta: the interval that the concrete variable is stretched to before it is cut at 0 and 1;
            gamma below 0, zeta above 1.

    >>> gate = HardConcrete()
    >>> gate.sample(torch.tensor([-4.0, 0.0, 4.0]), torch.tensor([0.5, 0.5, 0.5]))
    tensor([0.0000, 0.5000, 1.0000])
    >>> gate.open_probability(torch.tensor([-4.0, 0.0, 4.0])).round(decimals=2)
    tensor([0.0800, 0.8300, 1.0000])

    Raises:
        InputError: a constant out of range.
    """

    beta: float = 2 / 3
    gamma: float = -0.1
    zeta: float = 1.1

    def __post_init__(self) -> None:
        if not 0.0 < self.beta <= 1.0:
            raise InputError(f"beta is {self.beta!r}, but must be in (0, 1]; 2/3 is usual")
        if not -math.inf < self.gamma < 0.0:
            raise InputError(f"gamma is {self.gamma!r}, but must be below 0; -0.1 is usual")
        if not 1.0 < self.zeta < math.inf:
            raise InputError(f"zeta is {self.zeta!r}, but must be above 1; 1.1 is usual")

    def sample(self, log_alpha: Tensor, uniform: Tensor, beta: Tensor | None = None) -> Tensor:
        """The gates' values for numbers ``uniform`` drawn from [0, 1); all of one shape (equation 11).

        Args:
            beta: temperatures instead of the fixed one, in (0, 1).
        """
        noise = torch.logit(uniform, eps=1e-6)
        if beta is None:  # as few operations as possible, since a step of a small network has few others
            s = torch.sigmoid(torch.add(noise / self.beta, log_alpha, alpha=1.0 / self.beta))
        else:
            s = torch.sigmoid((noise + log_alpha) / beta)
        return self._stretched(s)

    def certain(self, log_alpha: Tensor) -> Tensor:
        """The gates' values where nothing is random: in evaluation (equation 13)."""
        return self._stretched(torch.sigmoid(log_alpha))

    def open_probability(self, log_alpha: Tensor, beta: Tensor | None = None) -> Tensor:
        """P[g > 0] = sigmoid(log alpha - beta log(-gamma / zeta)) (equation 12)."""
        return torch.sigmoid(log_alpha - (self.beta if beta is None else beta) * self._threshold)

    def location(self, probability: float) -> float:
        """The log alpha at which a gate is open with this probability, at the fixed temperature.

        >>> gate = HardConcrete()
        >>> round(gate.open_probability(torch.tensor(gate.location(0.3))).item(), 4)
        0.3

        Raises:
            InputError: the probability is not in (0, 1).
        """
        if not 0.0 < probability < 1.0:
            raise InputError(f"the probability of an open gate is {probability!r}, but must be in (0, 1)")
        return math.log(probability / (1.0 - probability)) + self.beta * self._threshold

    @property
    def _threshold(self) -> float:
        return math.log(-self.gamma / self.zeta)

    def _stretched(self, s: Tensor) -> Tensor:
        return (s * (self.zeta - self.gamma) + self.gamma).clamp(0.0, 1.0)
