"""Lightning: ``Evolution``, the callback that changes the topology of a sparse model while a Trainer trains.

Needs Lightning (extra ``lightning``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from regraft.errors import InputError, MissingDependency
from regraft.evolve import Evolve, Shrink
from regraft.evolve.context import Drop, Grow
from regraft.evolve.named import Patterns
from regraft.integrations.driver import Every, driver_of, make_sparse
from regraft.schedules import Schedule

try:
    from lightning.pytorch import Callback, LightningModule, Trainer, callbacks
    from lightning.pytorch.strategies import DDPStrategy, ParallelStrategy
    from lightning.pytorch.trainer.states import TrainerFn
except ModuleNotFoundError as error:
    raise MissingDependency("lightning", "lightning", "the Lightning callback") from error

AVERAGES = ("StochasticWeightAveraging", "WeightAveraging", "EMAWeightAveraging")
"""Callbacks of Lightning's, of various versions, that average weights."""

__all__ = ["Evolution"]


class Evolution(Callback):
    """Sparse evolutionary training, or another way of dropping and growing connections, in ``Trainer.fit``.

    It counts optimizer steps, not batches: accumulated gradients, several optimizers, and steps that a
    gradient scaler leaves out are taken into account. With ``every="epoch"`` an update follows each epoch but
    the last one. Its state is in Lightning's checkpoints, so a training that is resumed goes on as one that
    was never interrupted. In DDP all processes take the choices of the first, and rules that look at
    gradients see those of all.

    Args:
        rate: fraction of connections replaced, in [0, 1]: a number, a schedule, or the name of one. A
            schedule sees the updates so far and, where the trainer knows it, their number.
        drop: a rule or its name, as in ``regraft.Evolve``.
        grow: likewise; ``"gradient"`` (RigL) and ``"inner-product"`` look at what training computes.
        every: ``"epoch"``, ``"4epochs"``, or a number of optimizer steps.
        total: optimizer steps over which the topology changes; default
            ``trainer.estimated_stepping_batches``. No update happens at step ``total`` or later.
        seed: of the random choices.
        include, exclude: shell patterns on the names of weights or layers that evolve.
        explore: remember every position that was ever active.
        evolver: instead of all of these, an ``Evolve`` or ``Shrink`` that is not attached yet.
        sparsify: make the module sparse in ``setup``, which is before its optimizers are made: a density, or
            the arguments of ``regraft.sparsify``. A module that is sparse already stays as it is.
        log: give each update's figures (``evolve_density``, ``evolve_rate``, ``evolve_dropped``,
            ``evolve_grown``, ``evolve_regrown``) to the trainer's loggers.

    Attributes:
        evolver: the ``Evolve`` or ``Shrink`` inside, with its ``history`` of updates.

    >>> import torch, lightning
    >>> class Net(lightning.LightningModule):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layer = torch.nn.Linear(20, 10)
    ...     def training_step(self, batch):
    ...         return self.layer(batch).square().mean()
    ...     def configure_optimizers(self):
    ...         return torch.optim.SGD(self.parameters(), lr=0.1)
    >>> evolution = Evolution(rate=0.3, every=2, sparsify=0.2)
    >>> quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False,
    ...              enable_model_summary=False, accelerator="cpu", devices=1)
    >>> loader = torch.utils.data.DataLoader(torch.randn(12, 20), batch_size=2)
    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")  # few workers
    ...     lightning.Trainer(max_epochs=1, callbacks=[evolution], **quiet).fit(Net(), loader)
    >>> [(done.step, done.total) for done in evolution.evolver.history]
    [(2, 12), (4, 12)]

    Raises:
        InputError: unknown names, numbers out of range; when training begins: a module without sparse
            weights, an optimizer made before ``sparsify``, a strategy that splits weights (FSDP, DeepSpeed),
            callbacks that average weights, epochs of unknown length.
    """

    def __init__(
        self,
        rate: float | str | Schedule = 0.3,
        *,
        drop: str | Drop = "signed-magnitude",
        grow: str | Grow = "random",
        every: Every = "epoch",
        total: int | None = None,
        seed: int = 0,
        include: Patterns = ("*",),
        exclude: Patterns = (),
        explore: bool = False,
        evolver: Evolve | Shrink | None = None,
        sparsify: float | Mapping[str, Any] | None = None,
        log: bool = True,
    ) -> None:
        self._driver = driver_of(
            evolver, every, total,
            rate=rate, drop=drop, grow=grow, seed=seed, include=include, exclude=exclude, explore=explore,
        )  # fmt: skip
        self._sparsify, self._figures = sparsify, log  # `log` is taken by Lightning

    @property
    def evolver(self) -> Evolve | Shrink:
        """The evolver; its ``history`` says what was done."""
        return self._driver.evolver

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        fitting = trainer.state.fn == TrainerFn.FITTING
        if self._sparsify is not None and (fitting or trainer.ckpt_path):
            make_sparse(pl_module, self._sparsify)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _check_strategy(trainer)
        _check_callbacks(trainer)
        epoch_steps, total = _planned(trainer, pl_module)
        self._driver.start(
            pl_module,
            trainer.optimizers,
            group=getattr(trainer.strategy.model, "process_group", None),
            epoch_steps=epoch_steps,
            total=total,
            done=trainer.global_step // max(len(trainer.optimizers), 1),
        )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._driver.open()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for figures in self._driver.close():
            for logger in trainer.loggers if self._figures else ():
                logger.log_metrics(figures, step=trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._driver.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._driver.stop()

    def state_dict(self) -> dict[str, Any]:
        return self._driver.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._driver.load_state_dict(state_dict)


def _planned(trainer: Trainer, module: LightningModule) -> tuple[int | None, int | None]:
    """Optimizer steps of an epoch and of the whole training, None where Lightning does not know them."""
    scheduled = any(isinstance(c, callbacks.GradientAccumulationScheduler) for c in trainer.callbacks)
    if scheduled or not module.automatic_optimization:
        return None, None
    batches, total = trainer.num_training_batches, trainer.estimated_stepping_batches
    known = isinstance(total, int) and total > 0
    epoch_steps = None if math.isinf(batches) else math.ceil(batches / trainer.accumulate_grad_batches)
    return epoch_steps, int(total) if known else None


def _check_strategy(trainer: Trainer) -> None:
    strategy = trainer.strategy
    if isinstance(strategy, ParallelStrategy) and not isinstance(strategy, DDPStrategy):
        raise InputError(
            f"the strategy is {type(strategy).__name__}, which splits or rearranges weights, and positions "
            "cannot follow: use strategy='ddp', or one device"
        )


def _check_callbacks(trainer: Trainer) -> None:
    for callback in trainer.callbacks:
        if any(kind.__name__ in AVERAGES for kind in type(callback).__mro__):
            raise InputError(
                f"{type(callback).__name__} averages values entry by entry, but an entry becomes another "
                "connection when the topology changes: leave it out, or average in a loop of your own with "
                "regraft.evolve.follow"
            )
