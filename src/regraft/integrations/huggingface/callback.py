"""``Evolution``: the callback that changes the topology of a sparse model while a ``Trainer`` trains it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sized
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from regraft.errors import InputError
from regraft.evolve import Evolve, Shrink
from regraft.evolve.context import Drop, Grow
from regraft.evolve.named import Patterns
from regraft.integrations.driver import Every, driver_of, make_sparse
from regraft.integrations.huggingface.required import transformers
from regraft.schedules import Schedule

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

KEPT_AS = "regraft_evolution"
"""Key in the optimizer's first parameter group, in checkpoints, under which the evolver's state travels."""


class Evolution(transformers.TrainerCallback):
    """Sparse evolutionary training, or another way of dropping and growing connections, in ``Trainer.train``.

    It counts optimizer steps, not batches. With ``every="epoch"`` an update follows each epoch but the last
    one. Its state is kept with the optimizer's in the Trainer's checkpoints, so that
    ``train(resume_from_checkpoint=...)`` goes on as a training that was never interrupted. In distributed
    training all processes take the choices of the first, and rules that look at gradients see those of all.

    Args:
        rate: fraction of connections replaced, in [0, 1]: a number, a schedule, or the name of one. A
            schedule sees the updates so far and their number.
        drop: a rule or its name, as in ``regraft.Evolve``.
        grow: likewise; ``"gradient"`` (RigL) and ``"inner-product"`` look at what training computes.
        every: ``"epoch"``, ``"4epochs"``, or a number of optimizer steps.
        total: optimizer steps over which the topology changes; default all. No update happens at step
            ``total`` or later.
        seed: of the random choices.
        include, exclude: shell patterns on the names of weights or layers that evolve.
        explore: remember every position that was ever active.
        evolver: instead of all of these, an ``Evolve`` or ``Shrink`` that is not attached yet.
        sparsify: make the model sparse when the Trainer is made, before its optimizer: a density, or the
            arguments of ``regraft.sparsify``. A model that is sparse already stays as it is. With
            ``model_init`` make it sparse there instead.

    Attributes:
        evolver: the ``Evolve`` or ``Shrink`` inside, with its ``history`` of updates.

    Each update's figures (``evolve_density``, ``evolve_rate``, ``evolve_dropped``, ``evolve_grown``,
    ``evolve_regrown``) are an entry of ``trainer.state.log_history``; the newest are shown with the next
    loss.

    >>> import tempfile
    >>> from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
    >>> config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
    ...                     intermediate_size=16, max_position_embeddings=8)
    >>> samples = [{"input_ids": [i, 1], "labels": i % 2} for i in range(12)]
    >>> evolution = Evolution(rate=0.3, every=2, sparsify={"density": 0.2, "exclude": "classifier"})
    >>> folder = tempfile.TemporaryDirectory()
    >>> arguments = TrainingArguments(folder.name, use_cpu=True, report_to="none", disable_tqdm=True,
    ...                               num_train_epochs=1, per_device_train_batch_size=2,
    ...                               logging_strategy="no", save_strategy="no", dataloader_pin_memory=False)
    >>> trainer = Trainer(BertForSequenceClassification(config), arguments, train_dataset=samples,
    ...                   callbacks=[evolution])
    >>> result = trainer.train()  # doctest: +ELLIPSIS
    {...}
    >>> [done.step for done in evolution.evolver.history]
    [2, 4]
    >>> folder.cleanup()

    Raises:
        InputError: unknown names, numbers out of range; when training begins: a model without sparse
            weights, an optimizer made before ``sparsify``, FSDP or DeepSpeed, several GPUs in one process,
            epochs of unknown length.
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
    ) -> None:
        self._driver = driver_of(
            evolver, every, total,
            rate=rate, drop=drop, grow=grow, seed=seed, include=include, exclude=exclude, explore=explore,
        )  # fmt: skip
        self._sparsify = sparsify
        self._done: list[dict[str, float]] = []
        self._newest: dict[str, float] = {}
        self._saving: Any = None

    @property
    def evolver(self) -> Evolve | Shrink:
        """The evolver; its ``history`` says what was done."""
        return self._driver.evolver

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model = kwargs.get("model")
        if self._sparsify is not None and isinstance(model, nn.Module):
            make_sparse(model, self._sparsify)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        _check_arguments(args)
        accelerated = kwargs["optimizer"]
        optimizer = getattr(accelerated, "optimizer", accelerated)
        kept = optimizer.param_groups[0].pop(KEPT_AS, None)
        if kept is not None and state.global_step > 0:
            self._driver.load_state_dict(kept)
        batches = kwargs.get("train_dataloader")
        self._driver.start(
            kwargs["model"],
            [optimizer],
            group=_group(args),
            epoch_steps=_epoch_steps(batches, args.gradient_accumulation_steps),
            total=state.max_steps if state.max_steps > 0 else None,
            done=state.global_step,
        )
        self._done, self._newest = [], {}
        self._stop_saving()
        self._saving = optimizer.register_state_dict_post_hook(self._keep)

    def _keep(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        state["param_groups"][0][KEPT_AS] = self._driver.state_dict()

    def _stop_saving(self) -> None:
        if self._saving is not None:
            self._saving.remove()
        self._saving = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._driver.open()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._done += self._driver.close()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for figures in self._done:
            state.log_history.append({**figures, "epoch": state.epoch, "step": state.global_step})
            self._newest = figures
        self._done = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs is not None and "loss" in logs:
            logs.update({name: round(value, 4) for name, value in self._newest.items()})
            self._newest = {}

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._driver.stop()
        self._stop_saving()


def _epoch_steps(batches: Any, accumulate: int) -> int | None:
    """Optimizer steps of an epoch, None where the data does not know its length."""
    try:
        return math.ceil(len(batches) / accumulate) if isinstance(batches, Sized) else None
    except TypeError:  # a DataLoader over an iterable
        return None


def _group(args: Any) -> ProcessGroup | None:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.group.WORLD if distributed and args.world_size > 1 else None


def _check_arguments(args: Any) -> None:
    for name in ("deepspeed", "fsdp"):
        if getattr(args, name, None):
            raise InputError(
                f"{name} splits or rearranges weights, and positions cannot follow: leave it out, and start "
                "one process per GPU, `torchrun --nproc-per-node=2 train.py`"
            )
    if args.n_gpu > 1:
        raise InputError(
            f"one process would train on {args.n_gpu} GPUs with copies of the model: start one process per "
            f"GPU, `torchrun --nproc-per-node={args.n_gpu} train.py`"
        )
