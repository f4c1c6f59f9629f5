"""The L0 loss that leaves each group the share of its units that the student has, and how it rises."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from regraft.errors import InputError
from regraft.gates.module import Gates

UNDECIDED = (0.1, 0.9)
"""Between these probabilities of being open a gate has not decided."""

TOLERANCE = 0.2  # of the share: how far the mean of a group may end from it without a warning


def l0_loss(gates: Gates, share: float, open_probability: Tensor | None = None) -> Tensor:
    """Mean over groups of (share - mean P[g > 0])^2 (thesis 2, section 3.2.2), a scalar.

    The means are plain, as in the thesis, or weighted (``Gates.weigh``).

    Args:
        gates: the gates.
        share: of units that should stay open, in (0, 1): 1 / N for N networks.
        open_probability: that of the gates, [units], where they are not the module's own.

    >>> from regraft.gates.hard_concrete import HardConcrete
    >>> gates = Gates({"0": 100}, location=HardConcrete().location(0.9), spread=0.0)
    >>> round(l0_loss(gates, 0.5).item(), 4)
    0.16
    """
    probability = gates.open_probability() if open_probability is None else open_probability
    means = gates.group_means(probability)
    return F.mse_loss(means, torch.full_like(means, share))


@dataclass(frozen=True)
class Rising:
    """The weight of the L0 loss in each epoch: lambda_{t+1} = lambda_t + rate sqrt(lambda_t), which is about
    (sqrt(start) + rate t / 2)^2 (thesis 2, figure 3.4).

    Too large at first, it sets every gate to the share before the loss has spoken; too small at the end, the
    share is not reached and cutting costs accuracy.

    Attributes:
        start: lambda of epoch 0, above 0. The thesis: 0.01 for the sine, 0.05 for images, 0.3 for ImageNet.
        rate: 0 or more. The thesis: 0.05, in 150 epochs; 0.2 for ImageNet, in 20.

    >>> [round(Rising(0.04, 0.05)(epoch), 4) for epoch in range(3)]
    [0.04, 0.05, 0.0612]

    Raises:
        InputError: a number out of range.
    """

    start: float = 0.05
    rate: float = 0.05

    def __post_init__(self) -> None:
        if not 0.0 < self.start < math.inf:
            raise InputError(f"lambda_start is {self.start!r}, but must be above 0; 0.05 is usual")
        if not 0.0 <= self.rate < math.inf:
            raise InputError(f"lambda_rate is {self.rate!r}, but must be 0 or more; 0.05 is usual")

    @classmethod
    def within(cls, epochs: int, start: float = 0.05, end: float = 16.0) -> Rising:
        """The rate that takes lambda from ``start`` to about ``end`` in this many epochs. 16 is where the
        thesis's rate of 0.05 takes it in the 150 epochs of its experiments.

        >>> round(Rising.within(150).rate, 3)
        0.05
        """
        rising = cls(start)
        return cls(start, max(0.0, 2 * (math.sqrt(end) - math.sqrt(rising.start)) / epochs))

    def __call__(self, epoch: int) -> float:
        value = self.start
        for _ in range(epoch):
            value += self.rate * math.sqrt(value)
        return value


@dataclass(frozen=True)
class GroupGates:
    """How far the gates of one group have decided.

    Attributes:
        name: of the group.
        units: how many there are.
        open: mean probability of being open, in [0, 1], where units count as ``Gates.weigh`` says.
        undecided: share of gates with a probability between .1 and .9, counted alike.
    """

    name: str
    units: int
    open: float
    undecided: float


@torch.no_grad()
def decided(gates: Gates) -> list[GroupGates]:
    """The state of each group's gates.

    >>> gates = Gates({"0": 2}, spread=0.0)
    >>> _ = gates.log_alpha.data.copy_(torch.tensor([-9.0, 0.0]))
    >>> [(g.units, round(g.open, 2), g.undecided) for g in decided(gates)]
    [(2, 0.42, 0.5)]
    """
    low, high = UNDECIDED
    probability = gates.open_probability()
    between = (probability > low) & (probability < high)
    means = zip(
        gates.group_means(probability).tolist(), gates.group_means(between.float()).tolist(), strict=True
    )
    return [
        GroupGates(name, units, opened, undecided)
        for (name, units), (opened, undecided) in zip(gates.sizes.items(), means, strict=True)
    ]


class GatesWarning(UserWarning):
    """The gates did not do what they were trained for; what they chose is close to chance."""


def warn_unless_constrained(gates: Gates, share: float) -> None:
    """Warn where the mean probability of an open gate of some group is far from ``share``: the units that are
    cut then matter to the network, or units are kept that are closed."""
    far = [group for group in decided(gates) if abs(group.open - share) > TOLERANCE * share]
    if far:
        worst = max(far, key=lambda group: abs(group.open - share))
        direction = "higher" if worst.open > share else "lower"
        warnings.warn(
            f"the gates of {len(far)} of {len(gates.sizes)} groups did not come to the share {share:.3g} of "
            f"open ones (group '{worst.name}' ended at {worst.open:.3g}), so cutting the others changes the "
            f"network: take more merge_epochs, or a {direction} lambda_rate or gate_lr",
            GatesWarning,
            stacklevel=3,
        )
