"""``Evolution``: the callback that changes the topology of sparse layers while Keras trains them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

from regraft.errors import InputError
from regraft.evolve import EvolutionStep, Evolve
from regraft.evolve.context import Drop, Grow, Watching
from regraft.evolve.named import Patterns
from regraft.evolve.settings import at_least_one
from regraft.integrations.keras.required import keras
from regraft.integrations.keras.slots import KerasState
from regraft.integrations.keras.view import sparse_layers, torch_view
from regraft.schedules import Schedule
from regraft.train import seeds


class Evolution(keras.callbacks.Callback):
    """Sparse evolutionary training in ``model.fit``: SET, and with other rates LDV, OSV and EXD (thesis 3,
    chapters 3 and 4, and section 4.7, where a callback takes the place of a model built anew each epoch).

    Before an epoch begins, the first one excepted, a fraction of each sparse layer's connections is dropped
    and as many are grown elsewhere in the same layer. So no change follows the last epoch, also where
    training stops early, and what other callbacks see, keep or restore at the end of an epoch is the network
    whose metrics were measured. Survivors keep their values and the optimizer's slots bit for bit; new
    connections start fresh. Layers that do not train and full ones are left alone.

    Args:
        rate: fraction of connections replaced, in [0, 1]: a number, a schedule, or the name of one:
            ``"constant"`` (SET), ``"ldv"``, ``"osv"``, ``"exd"``, ``"cosine"``. It is called with the number
            of changes before this one, and their number in ``total``.
        drop: a rule or its name, as in ``regraft.Evolve``.
        grow: likewise; ``"gradient"`` and ``"inner-product"`` look at what the last batches before a change
            compute, and need ``every`` or a known number of batches in an epoch.
        every: ``"epoch"``, or a number of optimizer steps: the change then happens before the next batch.
        total: epochs (optimizer steps, where ``every`` is a number) in which the topology changes; default:
            all that ``fit`` is asked for.
        seed: the random choices of each change follow from it and from the optimizer's step count, which
            Keras keeps with the model: a run that is resumed (``BackupAndRestore``, or ``load_model`` and
            ``initial_epoch``) goes on as one that was never interrupted.
        include, exclude: shell patterns on the names of layers that evolve.
        explore: remember every position that was ever active.

    Attributes:
        evolver: the ``regraft.Evolve`` inside, with its ``history`` of changes.

    ``logs``, and so ``History``, ``CSVLogger`` and ``TensorBoard``, get for each epoch ``evolve_rate``,
    ``evolve_dropped`` (connections replaced since the epoch before it ended, as many as were grown) and
    ``evolve_regrown`` (those of them that grew back at once); with ``explore``, also ``evolve_explored``.

    >>> import numpy as np
    >>> from regraft.integrations.keras import SparseDense
    >>> model = keras.Sequential([keras.Input((20,)), SparseDense(10, density=0.2, seed=0)])
    >>> model.compile("adam", "mse")
    >>> samples = np.zeros((8, 20), "float32"), np.ones((8, 10), "float32")
    >>> evolution = Evolution("exd", seed=0)
    >>> history = model.fit(*samples, epochs=3, verbose=0, callbacks=[evolution])
    >>> [round(rate, 3) for rate in history.history["evolve_rate"]], len(evolution.history)
    ([0.0, 0.3, 0.297], 2)

    Raises:
        InputError: unknown names, a rate outside [0, 1], ``every`` or ``total`` below 1, a negative seed;
            when training begins: a model without sparse layers or not built, a pattern without a match.
    """

    def __init__(
        self,
        rate: float | str | Schedule = 0.3,
        *,
        drop: str | Drop = "signed-magnitude",
        grow: str | Grow = "random",
        every: str | int = "epoch",
        total: int | None = None,
        seed: int = 0,
        include: Patterns = ("*",),
        exclude: Patterns = (),
        explore: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(every, str) and every != "epoch":
            raise InputError(f"every is {every!r}, but must be 'epoch' or a number of optimizer steps")
        self.every: int | None = None if isinstance(every, str) else at_least_one("every", every)
        self.total = None if total is None else at_least_one("total", total)
        self.seed, self.explore = seed, explore
        generator = change_generator(seed, 0)
        self.evolver = Evolve(
            drop, grow, rate, generator=generator, include=include, exclude=exclude, explore=explore
        )
        self._base: int | None = None
        self._done_at = -1
        self._epoch_log: list[EvolutionStep] = []
        self._watch: AbstractContextManager[None] | None = None

    @property
    def history(self) -> list[EvolutionStep]:
        """The changes so far, oldest first."""
        return list(self.evolver.history)

    def evolve(self, done: int = 0, total: int | None = None) -> EvolutionStep:
        """Change the topology now: for training loops that do not call callbacks, after ``set_model``.

        Args:
            done: changes before this one.
            total: changes in all, for schedules that need to know the end.
        """
        evolver = self._attached()
        evolver.steps, evolver.updates = self._steps(), done
        evolver.every, evolver.total = 1, total
        evolver.generator = change_generator(self.seed, evolver.steps)
        step = evolver.evolve()
        self._epoch_log.append(step)
        return step

    def on_train_begin(self, logs: Any = None) -> None:
        self._base, self._done_at, self._epoch_log = None, -1, []
        self._unwatch()
        self._attached()
        if self.every is None and self._looks_at_gradients and not self._epoch_steps:
            raise InputError(
                f"the grow rule {self.evolver.grow!r} looks at the last batches before a change, but how "
                "many batches an epoch has is not known: pass steps_per_epoch to fit, or every=N"
            )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._base is None:  # a resumed run counts on, another fit begins anew
            planned = epoch * self._epoch_steps // self._batches_a_step if self._epoch_steps else 0
            self._base = self._steps() - planned
        if self.every is None and 0 < epoch < self._total_epochs:
            self.evolve(epoch - 1, self._total_epochs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        steps = self._steps() - (self._base or 0)
        if self.every is not None and steps % self.every == 0 and steps != self._done_at:
            self._done_at = steps
            total = self._total_steps
            if steps > 0 and (total is None or steps < total):
                self.evolve(steps // self.every - 1, None if total is None else -(-total // self.every))
        self._start_watching(batch, steps)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._unwatch()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is not None:
            logs.update(self._figures())
        self._epoch_log = []

    def on_train_end(self, logs: Any = None) -> None:
        self._unwatch()

    def _figures(self) -> dict[str, float]:
        """What happened since the epoch before ended, summed; the same names for each epoch."""
        done = [step.figures() for step in self._epoch_log]
        figures = {"rate": done[-1]["rate"] if done else 0.0}
        figures |= {name: float(sum(f[name] for f in done)) for name in ("dropped", "regrown")}
        if self.explore:
            history = self.evolver.history
            figures["explored"] = (history[-1].explored if history else None) or 0.0
        return {f"evolve_{name}": value for name, value in figures.items()}

    def _attached(self) -> Evolve:
        """The evolver, attached to the model and the slots that its optimizer has now."""
        if self.model is None:
            raise InputError("this Evolution has no model: pass it to model.fit(..., callbacks=[...])")
        values = [layer.values for layer in sparse_layers(self.model).values()]
        view, optimizer = torch_view(self.model), self.model.optimizer
        return self.evolver.attach(view, None if optimizer is None else KerasState(optimizer, values))

    def _steps(self) -> int:
        optimizer = self.model.optimizer
        return 0 if optimizer is None else int(optimizer.iterations)

    @property
    def _looks_at_gradients(self) -> bool:
        return isinstance(self.evolver.grow, Watching)

    @property
    def _epoch_steps(self) -> int:
        """Batches of an epoch, 0 where that is not known."""
        return int((self.params or {}).get("steps") or 0)

    @property
    def _batches_a_step(self) -> int:
        return int(getattr(self.model.optimizer, "gradient_accumulation_steps", None) or 1)

    @property
    def _total_epochs(self) -> int:
        planned = int((self.params or {}).get("epochs") or 1)
        return planned if self.total is None else min(planned, self.total)

    @property
    def _total_steps(self) -> int | None:
        """Optimizer steps in which the topology changes; None where that is not known."""
        if self.total is not None:
            return self.total
        epochs = int((self.params or {}).get("epochs") or 1)
        return epochs * self._epoch_steps // self._batches_a_step or None

    def _start_watching(self, batch: int, steps: int) -> None:
        """Let a grow rule that looks at gradients see this batch, if it is one of those that it asks for."""
        if not self._looks_at_gradients:
            return
        self.evolver.every = self._epoch_steps if self.every is None else self.every
        self.evolver.steps = batch if self.every is None else steps
        self.evolver.total = None
        self._watch = self.evolver.watch()
        self._watch.__enter__()

    def _unwatch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.__exit__(None, None, None)


def change_generator(seed: int, steps: int) -> torch.Generator:
    """The source of the random choices of a change after so many optimizer steps.

    >>> change_generator(0, 5).initial_seed() == change_generator(0, 5).initial_seed()
    True

    Raises:
        InputError: the seed is negative or no integer.
    """
    return seeds.stream(seed, f"evolve/{steps}")
