"""``Run``: everything that is under way in a training; ``Callback``: what may look at it and change it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from regraft.data import Data, Loader
from regraft.errors import InputError
from regraft.probe import Loss


class Diverged(InputError):
    """Training whose numbers are no longer finite."""


@dataclass
class History:
    """What happened, epoch by epoch.

    Attributes:
        epochs: one dict per epoch: ``epoch`` (from 1), ``train_loss``, ``test_loss``, ``test_accuracy`` in
            [0, 1] (and ``validation_...`` where the data has such a split), ``lr``, ``seconds`` spent
            training and ``evaluate_seconds``, and what callbacks add: ``rate``, ``dropped`` and ``grown``.
        stopped: why training ended before its last epoch, or None.
        step: ``"fused"``, or ``"ordinary: "`` and why; None before the first step.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    stopped: str | None = None
    step: str | None = None

    @property
    def final(self) -> dict[str, float]:
        """The last epoch's figures."""
        if not self.epochs:
            raise InputError("no epoch has been trained yet")
        return self.epochs[-1]

    def column(self, name: str) -> list[float]:
        """One figure over all epochs; NaN where an epoch has none.

        >>> History([{"train_loss": 2.0}, {"train_loss": 1.0}]).column("train_loss")
        [2.0, 1.0]
        """
        return [row.get(name, math.nan) for row in self.epochs]


@dataclass
class Run:
    """A training under way. Callbacks read it; they may change ``figures`` and call ``stop``.

    Attributes:
        epochs: epochs to train in all.
        epoch: epochs that are done.
        batch: batches done in the epoch under way; 0 between epochs.
        step: optimizer steps done in all.
        losses: loss of each batch of the epoch under way, float64 [batches].
        figures: numbers that go into this epoch's line of the history.
        objective: what the steps minimise, of the outputs and the numbers of the samples, where that is not
            the loss of their labels.
        config: what must be equal for a run to be resumed; plain JSON.
    """

    model: nn.Module
    data: Data
    loss: Loss
    optimizer: Optimizer
    scheduler: LRScheduler | None
    loader: Loader
    epochs: int
    losses: Tensor
    epoch: int = 0
    batch: int = 0
    step: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    history: History = field(default_factory=History)
    config: dict[str, Any] = field(default_factory=dict)
    callbacks: list[Callback] = field(default_factory=list)
    objective: Loss | None = None

    def stop(self, reason: str) -> None:
        """End training after this epoch."""
        self.history.stopped = reason

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def check_losses(self, since: int = 0) -> None:
        """Raise InputError if a loss of this epoch, from batch ``since`` on, is NaN or infinite."""
        bad = ~torch.isfinite(self.losses[since : self.batch])
        if bool(bad.any()):
            first = since + int(bad.nonzero()[0])
            raise self.diverged(f"the loss became {self.losses[first].item()}", first + 1)

    def diverged(self, what: str, batch: int) -> Diverged:
        """The error for a run whose numbers are no longer finite."""
        lr = self.optimizer.param_groups[0]["lr"]
        kept = next((c.kept for c in self.callbacks if c.kept is not None), None)
        after = f"; the last good checkpoint is '{kept}'" if kept else ""
        return Diverged(
            f"training diverged: {what} in epoch {self.epoch + 1}, step {batch} of {len(self.losses)}: "
            f"lower the learning rate (now {lr:g}), or take larger batches or normalised data{after}"
        )


class Callback:
    """Something that happens at set moments of a training. Override what you need.

    Attributes:
        name: under which its state goes into a checkpoint; different for each callback of a run.
        order: callbacks are called by increasing order, and within it as they were given. A checkpoint comes
            last, so that it sees what the others did.
        kept: path of the newest checkpoint that this callback wrote, if it writes any.
    """

    name: str = ""
    order: int = 0
    kept: str | None = None

    def on_start(self, run: Run) -> None:
        """Before the first step, after a checkpoint has been loaded."""

    def on_epoch_start(self, run: Run) -> None:
        """Before each epoch; not again where a run is resumed within one."""

    def on_step(self, run: Run) -> None:
        """After each optimizer step."""

    def on_epoch_end(self, run: Run) -> None:
        """After each epoch; its line is the last of ``run.history.epochs``."""

    def on_end(self, run: Run) -> None:
        """After the last epoch."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold for this callback: plain data and tensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave."""
