"""Scores made of scores: stacked on each other, and the inverted one as a control."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from regraft.errors import InputError
from regraft.probe import Probe
from regraft.scores.protocol import Score, Vectors, weights_of
from regraft.scores.saliency import finite, normalised
from regraft.signals.protocol import values_of


@dataclass(frozen=True, init=False)
class Stacked:
    """Stacked Scoring (thesis 5, algorithm 1): each score is computed with the one before it standing in for
    the weights, S_b = b(S_a(theta)); the last one ranks.

    A connection that is not active computes as 0 in every score of the stack.

    Args:
        scores: two or more, in the order they are computed.
        normalise: divide what stands in by the sum of its magnitudes over all weights. It does not change
            what a later score sees if that is homogeneous (magnitude, SynFlow); SNIP and GraSP see a network
            of another scale. The thesis's code did so for SNIP and GraSP alone.
        signed: let what stands in have the signs of the weights themselves; otherwise scores stand in as they
            are, as in the thesis, so those that are magnitudes make all weights positive.

    >>> import torch
    >>> from regraft import SparseLinear, SparseWeight
    >>> from regraft.scores import magnitude, synflow
    >>> model = SparseLinear(SparseWeight((1, 2), torch.tensor([0, 1]), torch.tensor([1.0, -3.0])), None)
    >>> Stacked(magnitude, synflow)(model, Probe(input_shape=(2,)))["weight"].tolist()
    [0.25, 0.75]

    Raises:
        InputError: fewer than two scores; when called: a score that is NaN or infinite.
    """

    scores: tuple[Score, ...]
    normalise: bool
    signed: bool

    def __init__(self, *scores: Score, normalise: bool = True, signed: bool = False) -> None:
        if len(scores) < 2 or not all(callable(s) for s in scores):
            raise InputError(
                f"Stacked got {len(scores)} scores, but needs two or more, each a function (model, probe): "
                "as in Stacked(magnitude, synflow)"
            )
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "normalise", normalise)
        object.__setattr__(self, "signed", signed)

    def __call__(
        self,
        model: nn.Module,
        probe: Probe | None = None,
        *,
        values: Vectors | None = None,
        active: Vectors | None = None,
    ) -> dict[str, Tensor]:
        """The last score, computed on those before it."""
        *before, last = self.scores
        standing = values
        own = values_of(weights_of(model), values) if self.signed else {}
        for score in before:
            found = score(model, probe, values=standing, active=active)
            standing = finite(found, f"a score that stands in for the weights, from {score!r}")
            if self.normalise:
                standing = normalised(standing)
            if self.signed:
                standing = {n: s.abs() * own[n].sign() for n, s in standing.items()}
        return last(model, probe, values=standing, active=active)


@dataclass(frozen=True)
class Inverted:
    """The score with its order turned round: keeps what ``score`` would drop first. A control.

    >>> import torch
    >>> from regraft import SparseLinear, SparseWeight
    >>> from regraft.scores import magnitude
    >>> model = SparseLinear(SparseWeight((1, 2), torch.tensor([0, 1]), torch.tensor([1.0, -3.0])), None)
    >>> Inverted(magnitude)(model)["weight"].tolist()
    [-1.0, -3.0]
    """

    score: Score

    def __call__(
        self,
        model: nn.Module,
        probe: Probe | None = None,
        *,
        values: Vectors | None = None,
        active: Vectors | None = None,
    ) -> dict[str, Tensor]:
        """The negative of each score."""
        return {n: -s for n, s in self.score(model, probe, values=values, active=active).items()}
