"""What every score is: (model, probe) -> {weight name: vector}, higher is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from regraft.errors import InputError
from regraft.probe import Probe
from regraft.weight import SparseWeight

Vectors = Mapping[str, Tensor]
"""One vector [nnz] per sparse weight, by the weight's name, lined up with its ``index``."""


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


def weights_of(model: nn.Module) -> dict[str, SparseWeight]:
    """The model's sparse weights by name, in order.

    Raises:
        InputError: it has none.
    """
    found = {n: m for n, m in model.named_modules() if isinstance(m, SparseWeight)}
    if not found:
        raise InputError(
            f"the {type(model).__name__} has no sparse weight to score: "
            "call regraft.sparsify(model, ...) first"
        )
    return found
