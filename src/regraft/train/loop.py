"""``fit``: the training loop."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from regraft import losses, measure
from regraft.data import Data, Loader
from regraft.errors import InputError
from regraft.probe import Loss
from regraft.train import checkpoints, seeds
from regraft.train.callbacks import Evolver, EvolveTopology
from regraft.train.distill import Teachers, numbered
from regraft.train.run import Callback, History, Run
from regraft.train.step import make_step

CHECK_EVERY = 100  # steps between looks at the losses on a GPU, where each look waits for it


def fit(
    model: nn.Module,
    data: Data,
    *,
    epochs: int,
    optimizer: Optimizer,
    scheduler: LRScheduler | None = None,
    scheduler_every: Literal["epoch", "step"] = "epoch",
    loss: str | Loss = "cross-entropy",
    batch_size: int = 100,
    drop_last: bool = False,
    evolver: Evolver | None = None,
    teachers: Teachers | None = None,
    callbacks: Iterable[Callback] = (),
    seed: int = 0,
    resume: str | os.PathLike[str] | None = None,
    config: Mapping[str, Any] | None = None,
) -> History:
    """Train a model, in place.

    Each step takes a batch, updates the model, lets ``evolver`` change the topology where it is due, and
    calls the callbacks; each epoch ends with the schedule's step and an evaluation on the test samples (and
    the validation samples, if any). The same arguments give the same weights, bit for bit, on one machine.
    Sparse MLPs that SGD trains on the CPU take a fused step (see ``train.step``), which leaves no gradients;
    ``history.step`` says which step was taken and why.

    Args:
        epochs: passes over the training samples, 1 or more.
        optimizer: any of torch's, built over the model's parameters after ``sparsify``.
        scheduler: any of torch's, stepped after each epoch or each step, as ``scheduler_every`` says.
        loss: a name, or a function ``(output, label) -> scalar``, the mean over the batch.
        batch_size: samples per step; the number of samples or more for full batches.
        drop_last: leave out a last batch that is not full (batch normalisation needs two samples at least).
        evolver: attached to the model and the optimizer (``Evolve``, ``Shrink``, ``LearnedThresholds``);
            ``None`` leaves the topology as it is. On the steps whose gradients it wants to see, the step is
            an ordinary one.
        teachers: networks to learn from besides the labels (``Teachers``); the step is then an ordinary one,
            and the history's training loss is what it minimises.
        seed: of the order of samples and of dropout. The caller's global generators are left untouched.
        resume: a checkpoint to go on from; every other argument must be as it was when it was written.
        config: more plain data that must agree when the run is resumed, such as the options of a command.

    >>> from regraft import Evolve, data, models, sparsify
    >>> digits = data.load("digits", per_class=20)
    >>> g = torch.Generator().manual_seed(0)
    >>> model = sparsify(models.build("mlp:64-32-10", generator=g), density=0.3, generator=g)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> evolver = Evolve(every=10, total=30, generator=g).attach(model, optimizer)
    >>> history = fit(model, digits, epochs=4, optimizer=optimizer, batch_size=20, evolver=evolver)
    >>> len(history.epochs), history.final["test_accuracy"] > 0.5
    (4, True)

    Raises:
        InputError: a value out of range, or training diverged.
        MismatchError: the data does not fit the model, or the checkpoint is of another run.
        FileError: the checkpoint cannot be read, or another training writes into its folder.
    """
    check_epochs(epochs)
    if scheduler_every not in ("epoch", "step"):
        raise InputError(f"scheduler_every is {scheduler_every!r}, but must be 'epoch' or 'step'")
    loss_function = losses.by_name(loss) if isinstance(loss, str) else loss
    device = next(model.parameters()).device
    data = data.to(device)
    objective = None if teachers is None else teachers.objective(data.train, loss_function)
    loader = Loader(
        data.train if objective is None else numbered(data.train),
        min(batch_size, len(data.train)),
        generator=seeds.stream(seed, "order"),
        drop_last=drop_last,
    )
    chosen = [*callbacks] if evolver is None else [EvolveTopology(evolver), *callbacks]
    run = Run(
        model, data, loss_function, optimizer, scheduler, loader, epochs,
        losses=torch.zeros(len(loader), dtype=torch.float64, device=device),
        callbacks=sorted(chosen, key=lambda c: c.order), objective=objective,
    )  # fmt: skip
    taught = {} if teachers is None else {"teachers": teachers.plain()}
    run.config = checkpoints.config_of(run, {"loss": _name(loss), "seed": seed, **taught, **(config or {})})
    modes = [(m, m.training) for m in model.modules()]
    with own_random_numbers(device, seeds.derived(seed, "dropout")):
        with measure.evaluating(model), torch.no_grad():
            output = measure.forward_checked(model, data.train.x[:1], data.train.highest)
            if objective is not None:
                objective.check(output)
        try:
            with checkpoints.held(run.callbacks):
                if resume is not None:
                    checkpoints.restore(run, resume)
                _train(run, scheduler_every)
        finally:
            for module, training in modes:
                module.training = training
    return run.history


def _name(loss: str | Loss) -> str:
    """A name that is the same in another process."""
    return loss if isinstance(loss, str) else getattr(loss, "__qualname__", None) or repr(loss)


def check_epochs(epochs: int) -> None:
    """Raise InputError unless ``epochs`` is a whole number of 1 or more."""
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise InputError(f"epochs is {epochs!r}, but must be a whole number of 1 or more")


@contextmanager
def own_random_numbers(device: torch.device, seed: int) -> Iterator[None]:
    """Within the block torch's global generators start from ``seed``; afterwards they are as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def _train(run: Run, scheduler_every: str) -> None:
    for callback in run.callbacks:
        callback.on_start(run)
    while run.epoch < run.epochs and run.history.stopped is None:
        _epoch(run, scheduler_every)
    for callback in run.callbacks:
        callback.on_end(run)


def _epoch(run: Run, scheduler_every: str) -> None:
    if run.batch == 0:
        run.figures = {"lr": float(run.optimizer.param_groups[0]["lr"]), "seconds": 0.0}
        for callback in run.callbacks:
            callback.on_epoch_start(run)
    run.model.train()
    _steps(run, scheduler_every)
    run.check_losses()
    row = _close_epoch(run)
    if run.scheduler is not None and scheduler_every == "epoch":
        if isinstance(run.scheduler, ReduceLROnPlateau):
            run.scheduler.step(row.get("validation_loss", row["test_loss"]))
        else:
            run.scheduler.step()
    for callback in run.callbacks:
        callback.on_epoch_end(run)


def _steps(run: Run, scheduler_every: str) -> None:
    evolver = next((c.evolver for c in run.callbacks if isinstance(c, EvolveTopology)), None)
    step = make_step(run.model, run.objective or run.loss, run.optimizer, evolver)
    run.history.step = str(step)
    # on a CPU a look at the loss costs nothing
    check_every = 1 if run.device.type == "cpu" else CHECK_EVERY
    per_step = run.scheduler if scheduler_every == "step" else None
    before, started = run.figures["seconds"], time.perf_counter()
    for x, y in run.loader:
        run.losses[run.batch] = step(x, y)
        run.batch += 1
        run.step += 1
        if run.batch % check_every == 0:
            run.check_losses(since=run.batch - check_every)
        if per_step is not None:
            per_step.step()
        run.figures["seconds"] = before + time.perf_counter() - started
        for callback in run.callbacks:
            callback.on_step(run)


def _close_epoch(run: Run) -> dict[str, float]:
    """Evaluate, and put the epoch's line into the history."""
    started = time.perf_counter()
    samples = torch.full_like(run.losses, run.loader.batch_size)
    if not run.loader.drop_last:
        samples[-1] = len(run.data.train) - run.loader.batch_size * (len(samples) - 1)
    mean = (run.losses * samples).sum() / samples.sum()
    row: dict[str, float] = {"epoch": run.epoch + 1, "train_loss": mean.item()}
    for part in ("validation", "test"):
        split = run.data.splits().get(part)
        if split is not None:
            figures = measure.evaluate(run.model, split, loss=run.loss)
            if math.isnan(figures["loss"]):
                raise run.diverged(f"the {part} loss became nan", len(run.losses))
            row |= {f"{part}_{name}": value for name, value in figures.items() if name != "n"}
    row |= run.figures
    row["evaluate_seconds"] = time.perf_counter() - started
    run.history.epochs.append(row)
    run.epoch, run.batch = run.epoch + 1, 0
    return row
