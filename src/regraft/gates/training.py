"""The plain training loop that merging by gates needs: any loader, any loss, no evaluation of classes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from regraft.errors import InputError
from regraft.probe import Loss
from regraft.train import History
from regraft.train.callbacks import Evolver
from regraft.train.step import make_step

Batches = Iterable[tuple[Tensor, Tensor]]
"""Pairs (inputs, targets); it must be possible to go through them again and again."""

Row = dict[str, float]
OnEpoch = Callable[[str, Row], object]
"""``(phase, figures of the epoch)``, called after each epoch."""


def check_batches(loader: Batches) -> tuple[Tensor, Tensor]:
    """The first batch.

    Raises:
        InputError: no batches of pairs, an empty loader, or one that can be gone through only once.
    """
    if isinstance(loader, Iterator):
        raise InputError(
            "the training batches can be gone through only once: pass a list of (x, y), a DataLoader or Data"
        )
    first = next(iter(loader), None)
    if first is None:
        raise InputError("the training loader is empty: pass at least one batch (x, y)")
    if (
        not isinstance(first, tuple | list)
        or len(first) != 2
        or not all(isinstance(t, Tensor) for t in first)
    ):
        raise InputError("the training loader must give pairs (x, y) of tensors")
    return first[0], first[1]


def train(
    model: nn.Module,
    loader: Batches,
    loss: Loss,
    optimizer: Optimizer,
    epochs: int,
    *,
    phase: str,
    scheduler: LRScheduler | None = None,
    evolver: Evolver | None = None,
    before_epoch: Callable[[int], object] | None = None,
    figures: Callable[[], Row] | None = None,
    on_epoch: OnEpoch | None = None,
) -> History:
    """Train a model in place, and note ``epoch``, ``train_loss``, ``lr``, ``seconds`` and ``figures()``.
    Batches are moved to the model's device.

    Args:
        phase: what errors and ``on_epoch`` call this training.
        scheduler: stepped after each epoch.
        before_epoch: called with the number of epochs done.

    Raises:
        InputError: the loss became NaN or infinite.
    """
    history = History()
    step = make_step(model, loss, optimizer, evolver)
    history.step = str(step)
    device = next(model.parameters()).device
    model.train()
    for epoch in range(epochs):
        if before_epoch is not None:
            before_epoch(epoch)
        row: Row = {"epoch": epoch + 1, "lr": float(optimizer.param_groups[0]["lr"])}
        started = time.perf_counter()
        losses = _epoch(loader, step, evolver, device)
        row["train_loss"] = _mean(losses, phase, epoch, row["lr"])
        row["seconds"] = time.perf_counter() - started
        history.epochs.append(row | ({} if figures is None else figures()))
        if scheduler is not None:
            scheduler.step()
        if on_epoch is not None:
            on_epoch(phase, history.final)
    return history


def _epoch(
    loader: Batches, step: Any, evolver: Evolver | None, device: torch.device
) -> list[tuple[Tensor, int]]:
    losses = []
    for x, y in loader:
        losses.append((step(x.to(device), y.to(device)), len(x)))
        if evolver is not None:
            evolver.step()
    return losses


def _mean(losses: list[tuple[Tensor, int]], phase: str, epoch: int, lr: float) -> float:
    samples = sum(n for _, n in losses)
    mean = sum(float(loss) * n for loss, n in losses) / max(samples, 1)
    if not math.isfinite(mean):
        raise InputError(
            f"{phase} diverged: the loss became {mean} in epoch {epoch + 1}: lower the learning rate (now "
            f"{lr:g}), or take larger batches or normalised data"
        )
    return mean
