"""Scores made of scores: stacked on each other, and the inverted one as a control."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from regraft.errors import InputError, unknown
from regraft.probe import Probe
from regraft.scores.protocol import Score, Vectors, weights_of
from regraft.scores.saliency import finite, normalised
from regraft.signals.protocol import values_of

SCALES = ("one", "weights", "none")


@dataclass(frozen=True, init=False)
class Stacked:
    """Stacked Scoring (thesis 5, algorithm 1): each score is computed with the one before it standing in for
    the weights, S_b = b(S_a(theta)); the last one ranks.

    A connection that is not active computes as 0 in every score of the stack.

    Args:
        scores: two or more, in the order they are computed.
        scale: how large what stands in is: ``"one"`` makes its magnitudes sum to 1 over the network (the
            thesis's code did so for SNIP and GraSP), ``"weights"`` to what the weights' own sum to, and
            ``"none"`` leaves it. Magnitude does not see it, nor SynFlow in a network without residual
            connections; with them take ``"weights"``, since a stream outweighs branches of tiny weights.
        signed: let what stands in have the signs of the weights themselves; otherwise scores stand in as they
            are, as in the thesis, so those that are magnitudes make all weights positive.

    >>> import torch
    >>> from regraft import SparseLinear, SparseWeight
    >>> from regraft.scores import magnitude, synflow
    >>> model = SparseLinear(SparseWeight((1, 2), torch.tensor([0, 1]), torch.tensor([1.0, -3.0])), None)
    >>> Stacked(magnitude, synflow)(model, Probe(input_shape=(2,)))["weight"].tolist()
    [0.25, 0.75]

    Raises:
        InputError: fewer than two scores, an unknown scale; when called: a score that is NaN or infinite.
    """

    scores: tuple[Score, ...]
    scale: str
    signed: bool

    def __init__(self, *scores: Score, scale: str = "one", signed: bool = False) -> None:
        if len(scores) < 2 or not all(callable(s) for s in scores):
            raise InputError(
                f"Stacked got {len(scores)} scores, but needs two or more, each a function (model, probe): "
                "as in Stacked(magnitude, synflow)"
            )
        if scale not in SCALES:
            raise unknown("scale of Stacked", scale, SCALES)
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "scale", scale)
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
        own = values_of(weights_of(model), values)
        size = sum(float(w.abs().sum()) for w in own.values()) if self.scale == "weights" else 1.0
        for score in before:
            found = score(model, probe, values=standing, active=active)
            standing = finite(found, f"a score that stands in for the weights, from {score!r}")
            if self.scale != "none":
                standing = {n: s * size for n, s in normalised(standing).items()}
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
