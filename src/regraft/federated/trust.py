"""Which updates a server takes, and by what name it turns others away."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from regraft.errors import InputError, MismatchError
from regraft.federated.update import Plan, Update

REASONS = {
    "corrupt": "the message is cut short, changed on its way or no update at all",
    "version": "written in another version of the format",
    "architecture": "of another model than the server's",
    "base": "changes against a topology that the server does not have",
    "round": "of another round",
    "client": "from a client that was not asked, or has answered already",
    "examples": "a number of examples that is no positive whole number, or not the client's",
    "positions": "positions that are not integers",
    "unsorted": "positions that do not increase",
    "duplicated": "a position that comes twice",
    "out-of-range": "a position beyond the weight",
    "shape": "a tensor is missing, extra, or of another shape or type",
    "connections": "more connections than a client may send",
    "not-finite": "NaN or infinite values",
    "too-large": "values beyond the largest magnitude allowed",
}
"""Why an update is turned away, by name."""


class Rejected(InputError):
    """An update that a server does not take.

    Attributes:
        reason: one of ``REASONS``.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        assert reason in REASONS
        super().__init__(sentence)
        self.reason = reason


@dataclass(frozen=True)
class Trust:
    """What is believed of an update. Nothing that fails here touches the model.

    Attributes:
        largest: largest magnitude of a value; a trained network's are far below.
        most_examples: largest number of examples a client may claim, where ``examples`` does not know better.
        most_density: largest share of connections of a sparse weight that a client may send.

    >>> Trust().largest
    1000.0

    Raises:
        InputError: a bound that is not positive.
    """

    largest: float = 1e3
    most_examples: int = 10**9
    most_density: float = 1.0

    def __post_init__(self) -> None:
        for name in ("largest", "most_examples", "most_density"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise InputError(f"{name} is {value!r}, but must be a positive number")

    def check(
        self,
        update: Update,
        plan: Plan,
        *,
        round: int,
        seen: Collection[str] = (),
        examples: Mapping[str, int] | None = None,
    ) -> None:
        """Raise ``Rejected`` unless the update can be merged.

        Args:
            plan: the model's architecture.
            round: the round under way.
            seen: clients that have answered in it already.
            examples: how many samples each client of the round has; None where the server does not know.
        """
        if update.round != round:
            raise Rejected(
                "round", f"the update of '{update.client}' is of round {update.round}, but this is {round}"
            )
        self._check_sender(update, seen, examples)
        try:
            plan.check(update)
        except MismatchError as error:
            raise Rejected("shape", f"the update of '{update.client}': {error}") from None
        for name, entries in update.layers.items():
            size = plan.sparse[name].size
            check_positions(entries.index, size, name)
            if entries.index.numel() > math.ceil(self.most_density * size):
                raise Rejected(
                    "connections",
                    f"'{name}' comes with {entries.index.numel()} connections, but at most the density "
                    f"{self.most_density:g} of {size} positions is taken",
                )
            self._check_values(entries.values, name)
        for name, tensor in (*update.dense.items(), *update.statistics.items()):
            self._check_values(tensor, name)

    def _check_sender(
        self, update: Update, seen: Collection[str], examples: Mapping[str, int] | None
    ) -> None:
        client, count = update.client, update.examples
        if client in seen:
            raise Rejected("client", f"'{client}' has answered in this round already")
        if examples is not None and client not in examples:
            raise Rejected("client", f"'{client}' was not asked in this round")
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= self.most_examples:
            raise Rejected(
                "examples", f"'{client}' claims {count!r} examples: expected 1 to {self.most_examples}"
            )
        if examples is not None and count != examples[client]:
            raise Rejected("examples", f"'{client}' claims {count} examples, but has {examples[client]}")

    def _check_values(self, values: Tensor, name: str) -> None:
        if not values.is_floating_point() or not values.numel():
            return
        top = float(values.detach().abs().max())  # NaN where there is one
        if not math.isfinite(top):
            raise Rejected("not-finite", f"'{name}' holds NaN or infinite values")
        if top > self.largest:
            raise Rejected("too-large", f"'{name}' holds {top:g}, but at most {self.largest:g} is taken")


def check_positions(index: Tensor, size: int, name: str) -> None:
    """Raise ``Rejected`` unless the positions are sorted, distinct and in [0, size).

    >>> try:
    ...     check_positions(torch.tensor([3, 3]), 9, "w")
    ... except Rejected as error:
    ...     print(error.reason, "-", error)
    duplicated - 'w' holds the position 3 twice
    """
    if index.dtype not in (torch.int64, torch.int32) or index.ndim != 1:
        raise Rejected("positions", f"'{name}' has positions of type {index.dtype}, but must have integers")
    if not index.numel():
        return
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= size:
        raise Rejected(
            "out-of-range", f"'{name}' holds the position {low if low < 0 else high}, not in [0, {size})"
        )
    steps = index[1:] - index[:-1]
    if bool((steps < 0).any()):
        raise Rejected("unsorted", f"'{name}' holds positions that do not increase")
    if bool((steps == 0).any()):
        raise Rejected("duplicated", f"'{name}' holds the position {int(index[1:][steps == 0][0])} twice")
