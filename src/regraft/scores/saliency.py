"""Weight times signal: SNIP, GraSP, SynFlow and the variance flow are one formula with four signals."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from regraft import signals
from regraft.errors import InputError
from regraft.probe import Probe
from regraft.scores.protocol import Vectors, weights_of
from regraft.signals import Signal
from regraft.signals.protocol import values_of


@dataclass(frozen=True)
class Saliency:
    """s = w * signal: what would be lost, to first order, without the connection.

    Attributes:
        signal: what multiplies the weight.
        magnitude_of: score by ``|s|``, where any change counts, whichever its sign.
        normalise: divide by the sum of ``|s|`` over all weights (SNIP as published, eq. 2.7 of thesis 5). The
            order stays, hence what is kept.

    >>> import torch
    >>> from regraft import SparseLinear, SparseWeight
    >>> model = SparseLinear(SparseWeight((1, 2), torch.tensor([0, 1]), torch.tensor([1.0, -3.0])), None)
    >>> synflow(model, Probe(input_shape=(2,)))["weight"].tolist()
    [1.0, 3.0]

    Raises:
        InputError: when called: scores that are NaN or infinite; what the signal needs and the probe lacks.
        MismatchError: when called: batches, values or active that do not fit the model.
    """

    signal: Signal
    magnitude_of: bool = False
    normalise: bool = False

    def __call__(
        self,
        model: nn.Module,
        probe: Probe | None = None,
        *,
        values: Vectors | None = None,
        active: Vectors | None = None,
    ) -> dict[str, Tensor]:
        """The score of each connection."""
        weights = values_of(weights_of(model), values)
        signals = self.signal(model, probe, values=values, active=active)
        scores = {n: (w.to(signals[n].dtype) * signals[n]).detach() for n, w in weights.items()}
        if self.magnitude_of:
            scores = {n: s.abs_() for n, s in scores.items()}
        scores = finite(scores, f"a score from {self.signal!r}")
        return normalised(scores) if self.normalise else scores


snip = Saliency(signals.gradient, magnitude_of=True)
"""``|w dL/dw|``, the loss's sensitivity to a mask on the connection (Lee et al. 2018, arXiv:1810.02340)."""

grasp = Saliency(signals.hessian_gradient)
"""w * Hg. Removing a connection changes the squared norm of the gradient by -2 w Hg, to first order: those go
first whose removal raises it most or lowers it least (Wang et al. 2020, arXiv:2002.07376, eq. 8, whose score
is -w * Hg and whose *largest* are removed)."""

grasp_magnitude = replace(grasp, magnitude_of=True)
"""``|w Hg|``: what changes the gradient's flow most, either way, is kept (thesis 5, table 5.11)."""

synflow = Saliency(signals.flow, magnitude_of=True)
"""``|w| dR/d|w|``, the share of all paths that run through the connection (Tanaka et al. 2020,
arXiv:2006.05467)."""

variance_flow = Saliency(signals.variance_flow, magnitude_of=True)
"""w^2 dV/d(w^2), the share of the outputs' variance that runs through the connection: synaptic flow of the
squared weights, from the variance of each input feature."""


def finite(scores: dict[str, Tensor], what: str) -> dict[str, Tensor]:
    """``scores`` as they are.

    Raises:
        InputError: one is NaN or infinite, so that they cannot be ranked.
    """
    for name, vector in scores.items():
        if not bool(vector.isfinite().all()):
            count = int((~vector.isfinite()).sum())
            raise InputError(
                f"{what}: {count} of {vector.numel()} scores of '{name}' are NaN or infinite: look for a "
                "loss or an input that is not finite, or a training run that diverged"
            )
    return scores


def normalised(scores: Vectors) -> dict[str, Tensor]:
    """Scores divided by the sum of their magnitudes over all weights; all zero stay zero."""
    total = sum(float(s.abs().sum()) for s in scores.values())
    return {n: s / total if total > 0 else s for n, s in scores.items()}
