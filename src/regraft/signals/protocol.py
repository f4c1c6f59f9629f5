"""What every signal is, and the checks that signals and scores share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from regraft.errors import InputError, MismatchError
from regraft.probe import Probe
from regraft.weight import SparseWeight

Vectors = Mapping[str, Tensor]
"""One vector [nnz] per sparse weight, by the weight's name, lined up with its ``index``."""


class Signal(Protocol):
    """``(model, probe) -> {weight name: vector [nnz]}``: what one more unit of each connection would bring.

    ``values`` stand in for the weights' own values; where ``active`` is False, a connection computes as 0 and
    has a signal all the same. The model is left as it was, bit for bit, and no ``.grad`` is written.
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


def values_of(weights: Mapping[str, SparseWeight], values: Vectors | None) -> dict[str, Tensor]:
    """The values to compute with: ``values`` where given, the weights' own otherwise; detached.

    Raises:
        MismatchError: ``values`` lacks a weight, or a vector has another length than its weight.
    """
    if values is None:
        return {n: w.values.detach() for n, w in weights.items()}
    found = _lined_up(weights, values, "values")
    return {n: v.detach().to(weights[n].values.device) for n, v in found.items()}


def active_of(weights: Mapping[str, SparseWeight], active: Vectors | None) -> dict[str, Tensor] | None:
    """``active`` checked, or None for all.

    Raises:
        InputError: not boolean.
        MismatchError: as for ``values_of``.
    """
    if active is None:
        return None
    found = _lined_up(weights, active, "active")
    for name, vector in found.items():
        if vector.dtype != torch.bool:
            raise InputError(f"active['{name}'] is of type {vector.dtype}, but must be boolean")
    return {n: v.to(weights[n].values.device) for n, v in found.items()}


def _lined_up(weights: Mapping[str, SparseWeight], vectors: Vectors, what: str) -> dict[str, Tensor]:
    for name, weight in weights.items():
        if name not in vectors:
            raise MismatchError(f"{what} lacks the weight '{name}': give one vector for each sparse weight")
        if vectors[name].shape != (weight.nnz,):
            raise MismatchError(
                f"{what}['{name}'] has shape {tuple(vectors[name].shape)}, but the weight has {weight.nnz} "
                "connections: give one number for each"
            )
    return {n: vectors[n] for n in weights}
