"""Losses by name: (output, label) -> mean over the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from regraft.errors import InputError, unknown
from regraft.probe import Loss


@dataclass(frozen=True)
class CrossEntropy:
    """Softmax cross-entropy of logits [n, classes] with labels [n].

    With ``smoothing`` s in [0, 1) the target is 1 - s + s / classes for the label and s / classes for the
    others (Szegedy et al. 2016, arXiv:1512.00567, section 7).
    """

    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.smoothing < 1.0:
            raise InputError(f"label smoothing is {self.smoothing!r}, but must be in [0, 1); 0.1 is usual")

    def __call__(self, output: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(output, y, label_smoothing=self.smoothing)


def mse(output: Tensor, y: Tensor) -> Tensor:
    """Mean of (output - onehot)^2 over samples and classes."""
    return F.mse_loss(output, F.one_hot(y, output.shape[1]).to(output))


def bce(output: Tensor, y: Tensor) -> Tensor:
    """Binary cross-entropy of each logit with "this class or not", mean over samples and classes."""
    return F.binary_cross_entropy_with_logits(output, F.one_hot(y, output.shape[1]).to(output))


def nll(output: Tensor, y: Tensor) -> Tensor:
    """Negative log-likelihood, for a model whose output is log-probabilities (it ends in log-softmax)."""
    return F.nll_loss(output, y)


LOSSES: dict[str, Callable[[], Loss]] = {
    "cross-entropy": CrossEntropy,
    "mse": lambda: mse,
    "bce": lambda: bce,
    "nll": lambda: nll,
}


def by_name(name: str, label_smoothing: float = 0.0) -> Loss:
    """The loss called ``name``.

    >>> by_name("cross-entropy", 0.1)
    CrossEntropy(smoothing=0.1)

    Raises:
        InputError: unknown name; label smoothing out of [0, 1), or with another loss than cross-entropy.
    """
    if name not in LOSSES:
        raise unknown("loss", name, LOSSES)
    if name == "cross-entropy":
        return CrossEntropy(label_smoothing)
    if label_smoothing:
        raise InputError(f"label smoothing goes with the loss 'cross-entropy', not with '{name}'")
    return LOSSES[name]()
