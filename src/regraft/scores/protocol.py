"""What every score is: (model, probe) -> {weight name: vector}, higher is kept."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from regraft.probe import Probe
from regraft.signals.protocol import Vectors, weights_of

__all__ = ["Score", "Vectors", "weights_of"]


class Score(Protocol):
    """``(model, probe) -> {weight name: vector [nnz]}``; the higher, the longer a connection is kept.

    Every score takes two more vectors per weight, so that scores stack and pruned connections can revive:

    - ``values``: numbers that stand in for the weight's own values (Stacked Scoring); default: its own.
    - ``active``: booleans; an entry that is False computes as 0, as if it were pruned, and is scored all the
      same by what it would bring. Default: all are active.

    The model is left as it was, bit for bit, and no ``.grad`` is written.
    """

    def __call__(
        self,
        model: nn.Module,
        probe: Probe | None = None,
        *,
        values: Vectors | None = None,
        active: Vectors | None = None,
    ) -> dict[str, Tensor]: ...
