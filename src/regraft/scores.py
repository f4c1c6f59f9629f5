"""How much each connection matters: (model, probe) -> {weight name: vector}, higher is kept.

The vector of a weight lines up with its ``index``. Selection (``regraft.select``) turns scores into the
entries that stay.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from regraft.errors import InputError, unknown
from regraft.probe import Probe
from regraft.weight import SparseWeight


class Score(Protocol):
    """``(model, probe) -> {weight name: vector [nnz]}``; the higher, the longer a connection is kept."""

    def __call__(self, model: nn.Module, probe: Probe | None = None) -> dict[str, Tensor]: ...


@torch.no_grad()
def magnitude(model: nn.Module, probe: Probe | None = None) -> dict[str, Tensor]:
    """``|w|`` of each connection (Han et al. 2015, arXiv:1506.02626). The probe is not used.

    >>> from regraft import SparseLinear, SparseWeight
    >>> model = SparseLinear(SparseWeight((1, 3), torch.tensor([0, 2]), torch.tensor([0.5, -2.0])), None)
    >>> magnitude(model)["weight"].tolist()
    [0.5, 2.0]

    Raises:
        InputError: the model has no sparse weight.
    """
    return {name: w.values.abs() for name, w in _weights(model).items()}


def random(model: nn.Module, probe: Probe | None = None) -> dict[str, Tensor]:
    """A uniform number in [0, 1) for each connection, from ``probe.generator``: the control that every
    comparison of scores needs.

    Raises:
        InputError: the probe has no generator; the model has no sparse weight.
    """
    generator = (probe or Probe()).require_generator("the random score")
    return {
        name: torch.rand(w.nnz, generator=generator, device=generator.device).to(w.index.device)
        for name, w in _weights(model).items()
    }


SCORES: dict[str, Score] = {"magnitude": magnitude, "random": random}


def by_name(name: str) -> Score:
    """The score called ``name``, or an error with the nearest names.

    >>> by_name("magnitude") is magnitude
    True
    """
    if name not in SCORES:
        raise unknown("score", name, SCORES)
    return SCORES[name]


def _weights(model: nn.Module) -> dict[str, SparseWeight]:
    found = {n: m for n, m in model.named_modules() if isinstance(m, SparseWeight)}
    if not found:
        raise InputError(
            f"the {type(model).__name__} has no sparse weight to score: "
            "call regraft.sparsify(model, ...) first"
        )
    return found
