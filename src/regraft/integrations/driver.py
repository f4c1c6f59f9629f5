"""What the callbacks of torch's training frameworks share: an evolver that follows somebody else's loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from regraft.errors import InputError
from regraft.evolve import Evolve, Shrink
from regraft.evolve.context import Drop, Grow
from regraft.evolve.named import Patterns, sparse_weights
from regraft.evolve.optimizer_state import holds
from regraft.evolve.settings import at_least_one
from regraft.layers import sparsify
from regraft.schedules import Schedule
from regraft.train import seeds
from regraft.train.evolving import steps_between

if TYPE_CHECKING:  # torch may be built without torch.distributed
    from torch.distributed import ProcessGroup

Every = str | int


def make_sparse(model: nn.Module, wanted: float | Mapping[str, Any]) -> None:
    """``regraft.sparsify`` with a density or named arguments, unless something in the model is sparse."""
    try:
        sparse_weights(model)
    except InputError:
        sparsify(model, **(dict(wanted) if isinstance(wanted, Mapping) else {"density": wanted}))


class Driver:
    """Counts the steps that optimizers really take, and lets an evolver act between them.

    A framework calls ``start`` once, ``open`` before each forward pass, and ``close`` after a step may have
    happened; ``stop`` at the end or after an error. Optimizers are asked themselves, by a hook of theirs, so
    that accumulated micro-batches, steps that a gradient scaler left out, and steps of optimizers without
    sparse weights do not count. Several optimizers that step between ``open`` and ``close`` count as the one
    that stepped most often.

    Args:
        evolver: an ``Evolve`` or ``Shrink``.
        every: ``"epoch"``, ``"4epochs"`` or a number of optimizer steps between updates; None leaves the
            evolver's own ``every`` and ``total``.
        total: optimizer steps over which the topology changes; None for all that the framework plans.

    Raises:
        InputError: ``every`` not of these forms, ``total`` below 1.
    """

    def __init__(self, evolver: Evolve | Shrink, every: Every | None, total: int | None) -> None:
        if isinstance(every, str):
            steps_between(every, 1)
        elif every is not None:
            at_least_one("every", every)
        self.evolver, self.every = evolver, every
        self.total = None if total is None else at_least_one("total", total)
        self._pending: Mapping[str, Any] | None = None
        self._started = False
        self._counts: list[int] = []
        self._stride = (
            1  # steps between open and close: more than one where a loop of one's own takes several
        )
        self._hooks: list[Any] = []
        self._watch = ExitStack()
        self._model: nn.Module | None = None

    def start(
        self,
        model: nn.Module,
        optimizers: Iterable[torch.optim.Optimizer],
        *,
        group: ProcessGroup | None = None,
        epoch_steps: int | None,
        total: int | None,
        done: int,
    ) -> None:
        """Attach the evolver to what is about to be trained.

        Args:
            group: processes that train the model together.
            epoch_steps: optimizer steps in an epoch, None if unknown.
            total: optimizer steps of the whole training, None if unknown.
            done: optimizer steps that were done before, by a training that is resumed.

        Raises:
            InputError: as ``Evolve.attach``; epochs of unknown length; weights split over processes.
        """
        self.stop()
        given = list(optimizers)
        self._schedule(epoch_steps, total)
        if isinstance(self.evolver, Evolve):
            self.evolver.attach(model, given, group=group)
        else:
            _check_alone(group)
            self.evolver.attach(model, given)
        self._model = model
        if self._pending is not None:
            self.evolver.load_state_dict(self._pending)
        elif self._started or self.evolver.steps == 0:  # else its owner has loaded a state
            self.evolver.steps = done
            self.evolver.history.clear()
            if isinstance(self.evolver, Evolve):
                self.evolver.updates = done // self.evolver.every
        self._pending, self._started = None, True
        values = [w.values for w in sparse_weights(model).values()]
        counted = [o for o in given if any(holds(o, v) for v in values)]
        self._counts = [0] * len(counted)
        self._hooks = [o.register_step_post_hook(self._counter(i)) for i, o in enumerate(counted)]

    def _schedule(self, epoch_steps: int | None, total: int | None) -> None:
        if self.every is None:
            return
        if isinstance(self.every, int):
            self.evolver.every = self.every
        elif epoch_steps is None and "epoch" in self.every:
            raise InputError(
                f"every is {self.every!r}, but how many optimizer steps an epoch has is not known before it "
                "ends here: give every=1000, a number of steps"
            )
        else:
            self.evolver.every = steps_between(self.every, epoch_steps or 1)
        if isinstance(self.evolver, Evolve):
            self.evolver.total = total if self.total is None else self.total

    def _counter(self, which: int) -> Any:
        def count(*_: Any) -> None:
            self._counts[which] += 1

        return count

    def open(self) -> None:
        """Before a forward pass: let the evolver see its gradients, if it wants to."""
        self._watch.close()
        now = self.evolver.steps
        try:
            for ahead in range(self._stride):
                self.evolver.steps = now + ahead
                if self.evolver.watching:
                    self._watch.enter_context(self.evolver.watch())
                    return
        finally:
            self.evolver.steps = now

    def close(self) -> list[dict[str, float]]:
        """After it, and after the optimizers' steps: count them, and evolve where that is due.

        Returns:
            for each update ``evolve_density`` (of all sparse weights together), ``evolve_rate``,
            ``evolve_dropped``, ``evolve_grown``, ``evolve_regrown`` and what else the evolver tells.
        """
        self._watch.close()
        taken, self._counts[:] = max(self._counts, default=0), [0] * len(self._counts)
        self._stride = max(self._stride, taken)
        changes = [done for done in (self.evolver.step() for _ in range(taken)) if done is not None]
        return [
            {
                f"evolve_{name}": float(v)
                for name, v in ({"density": self._density()} | done.figures()).items()
            }
            for done in changes
        ]

    def _density(self) -> float:
        assert self._model is not None
        weights = sparse_weights(self._model).values()
        return sum(w.nnz for w in weights) / max(sum(w.size for w in weights), 1)

    def stop(self) -> None:
        """Take the hooks away again."""
        self._watch.close()
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._counts = [], []

    def state_dict(self) -> dict[str, Any]:
        """The evolver's: plain data and tensors."""
        return self.evolver.state_dict() if self._pending is None else dict(self._pending)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keep it for the next ``start``."""
        self._pending = state


def _check_alone(group: ProcessGroup | None) -> None:
    if group is not None and group.size() > 1:
        raise InputError(
            "Shrink changes how many connections there are, but DistributedDataParallel exchanges gradients "
            "of the size that it began with: shrink in one process, or use Evolve"
        )


def driver_of(
    evolver: Evolve | Shrink | None,
    every: Every,
    total: int | None,
    *,
    rate: float | str | Schedule,
    drop: str | Drop,
    grow: str | Grow,
    seed: int,
    include: Patterns,
    exclude: Patterns,
    explore: bool,
) -> Driver:
    """The driver of ``evolver``, which knows its own steps, or else of an ``Evolve`` made here, whose
    ``every`` and ``total`` the loop will tell; the same seed gives the same choices."""
    if evolver is not None:
        return Driver(evolver, None, None)
    generator = seeds.stream(seed, "evolve")
    made = Evolve(drop, grow, rate, generator=generator, include=include, exclude=exclude, explore=explore)
    return Driver(made, every, total)
