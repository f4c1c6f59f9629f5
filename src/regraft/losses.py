"""Losses by name: (output, target) -> mean over the batch. Targets are labels, or numbers for mse and bce."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from regraft.errors import InputError, MismatchError, unknown
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
    """Mean of (output - target)^2 over samples and outputs.

    The target is ``y`` itself where it has floating-point numbers, of the output's shape (regression), and
    one-hot where it has labels [n].

    >>> mse(Tensor([[0.0], [1.0]]), Tensor([[0.0], [3.0]])).item()
    2.0

    Raises:
        MismatchError: numbers in another shape than the output's, which torch would repeat.
    """
    return F.mse_loss(output, _numbers(output, y))


def bce(output: Tensor, y: Tensor) -> Tensor:
    """Binary cross-entropy of each logit with "this class or not", mean over samples and classes.

    Samples that belong to several classes, or to none, have a row of 1 and 0 each as targets [n, classes].

    >>> bce(Tensor([[9.0, 9.0]]), Tensor([[1.0, 1.0]])).item() < 0.001
    True

    Raises:
        MismatchError: targets with numbers in another shape than the output's.
    """
    return F.binary_cross_entropy_with_logits(output, _numbers(output, y))


def _numbers(output: Tensor, y: Tensor) -> Tensor:
    """Targets [n, outputs] as they are, labels [n] one-hot."""
    if not y.is_floating_point():
        return F.one_hot(y, output.shape[1]).to(output)
    if y.shape != output.shape:
        raise MismatchError(
            f"the output has shape {tuple(output.shape)}, but the target {tuple(y.shape)}: pass numbers of "
            "the output's shape, as y.unsqueeze(1) for one output"
        )
    return y


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
