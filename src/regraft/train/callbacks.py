"""The callbacks of the training loop: evolution, steps of the caller's own, stopping, progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from typing import Any, Protocol

from torch import Tensor, nn

from regraft.errors import InputError
from regraft.train.run import Callback, Run


class Change(Protocol):
    """What an update did."""

    def figures(self) -> dict[str, float]: ...


class Evolver(Protocol):
    """What changes a topology while it trains: ``Evolve``, ``Shrink``, ``LearnedThresholds``.

    Attributes:
        watching: whether it wants to see the gradients of the coming step, within ``watch()`` or by ``show``.
        seconds: time spent so far, by what it was spent on.
    """

    seconds: dict[str, float]

    @property
    def watching(self) -> bool: ...

    def watch(self) -> AbstractContextManager[None]: ...

    def show(self, seen: Mapping[nn.Module, tuple[Tensor, Tensor]]) -> None: ...

    def step(self) -> Change | None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


SUMS = ("dropped", "grown", "regrown")


class EvolveTopology(Callback):
    """``evolver.step()`` after each optimizer step.

    It notes of each epoch what the updates say (``rate``, ``dropped``, ``grown`` and ``regrown`` of
    ``Evolve``), and the seconds that they took, which are part of the epoch's (``search_seconds``,
    ``rewire_seconds``).
    """

    name = "evolve"
    order = -100

    def __init__(self, evolver: Evolver) -> None:
        self.evolver = evolver

    def on_epoch_start(self, run: Run) -> None:
        run.figures.update(dict.fromkeys(SUMS, 0))
        run.figures.update({f"{part}_seconds": 0.0 for part in self.evolver.seconds})

    def on_step(self, run: Run) -> None:
        before = dict(self.evolver.seconds)
        done = self.evolver.step()
        if done is None:
            return
        for name, value in done.figures().items():
            run.figures[name] = run.figures[name] + value if name in SUMS else value
        for part, seconds in self.evolver.seconds.items():
            run.figures[f"{part}_seconds"] += seconds - before[part]

    def state_dict(self) -> dict[str, Any]:
        return self.evolver.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.evolver.load_state_dict(state)


class Steps(Protocol):
    """Anything attached to a model that wants to act after each optimizer step, such as ``RowNormalise``."""

    def step(self) -> object: ...


class AfterStep(Callback):
    """``action.step()`` after each optimizer step and after evolution, for an object that keeps no state."""

    order = -50

    def __init__(self, action: Steps) -> None:
        self.action = action
        self.name = f"after-step-{type(action).__name__}"

    def on_step(self, run: Run) -> None:
        self.action.step()


class Hooks(Callback):
    """Plain functions of the run as a callback.

    >>> seen = []
    >>> hooks = Hooks(epoch_end=lambda run: seen.append(run.epoch))
    """

    def __init__(
        self,
        *,
        step: Callable[[Run], object] | None = None,
        epoch_end: Callable[[Run], object] | None = None,
        name: str = "hooks",
    ) -> None:
        self.name = name
        self._step, self._epoch_end = step, epoch_end

    def on_step(self, run: Run) -> None:
        if self._step is not None:
            self._step(run)

    def on_epoch_end(self, run: Run) -> None:
        if self._epoch_end is not None:
            self._epoch_end(run)


class EarlyStopping(Callback):
    """Stop where a figure has not become better for ``patience`` epochs.

    Args:
        patience: epochs without improvement, 1 or more.
        monitor: the figure; one that ends in ``loss`` should fall, any other rise. Default: the validation
            loss where the data has a validation split, else the test loss.
        min_delta: how much better counts as better, 0 or more.
        restore_best: put the model of the best epoch back at the end.
    """

    name = "early-stopping"

    def __init__(
        self,
        patience: int,
        monitor: str | None = None,
        min_delta: float = 0.0,
        restore_best: bool = False,
    ) -> None:
        if patience < 1:
            raise InputError(f"patience is {patience!r}, but must be 1 epoch or more")
        if min_delta < 0:
            raise InputError(f"min_delta is {min_delta!r}, but must be 0 or more")
        self.patience, self.monitor, self.min_delta = patience, monitor, min_delta
        self.restore_best = restore_best
        self.best: float | None = None
        self.best_epoch = 0
        self._best_model: dict[str, Any] | None = None

    def on_epoch_end(self, run: Run) -> None:
        row = run.history.final
        monitor = self.monitor or ("validation_loss" if "validation_loss" in row else "test_loss")
        if monitor not in row:
            raise InputError(
                f"early stopping watches {monitor!r}, but the history has {', '.join(map(repr, row))}"
            )
        value = -row[monitor] if monitor.endswith("loss") else row[monitor]
        if self.best is None or value > self.best + self.min_delta:
            self.best, self.best_epoch = value, run.epoch
            if self.restore_best:
                self._best_model = deepcopy(run.model.state_dict())
        elif run.epoch - self.best_epoch >= self.patience:
            run.stop(f"{monitor} has not become better since epoch {self.best_epoch}")

    def on_end(self, run: Run) -> None:
        if self._best_model is not None:
            run.model.load_state_dict(self._best_model)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch, "best_model": self._best_model}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self._best_model = state["best_model"]


class StopAfterAccuracy(Callback):
    """Stop ``extra`` epochs after the test accuracy first exceeds ``threshold`` (thesis 1, section 7.5: 200
    epochs after 85 %).

    Args:
        threshold: accuracy in [0, 1].
        extra: epochs trained after that, 0 or more.
        restart: count anew each time the accuracy falls below the threshold again, which thesis 1 did not do
            and recommends.
    """

    name = "stop-after-accuracy"

    def __init__(self, threshold: float = 0.85, extra: int = 200, restart: bool = False) -> None:
        if not 0.0 <= threshold <= 1.0:
            raise InputError(f"the accuracy threshold is {threshold!r}, but must be in [0, 1]: 0.85 is 85 %")
        if extra < 0:
            raise InputError(f"the extra epochs are {extra!r}, but must be 0 or more")
        self.threshold, self.extra, self.restart = threshold, extra, restart
        self.passed: int | None = None

    def on_epoch_end(self, run: Run) -> None:
        row = run.history.final
        if "test_accuracy" not in row:
            raise InputError(
                "StopAfterAccuracy waits for an accuracy, but the targets are numbers: use EarlyStopping"
            )
        above = row["test_accuracy"] > self.threshold
        if above and self.passed is None:
            self.passed = run.epoch
        elif self.restart and not above:
            self.passed = None
        if self.passed is not None and run.epoch - self.passed >= self.extra:
            run.stop(
                f"test accuracy passed {self.threshold:g} in epoch {self.passed}, "
                f"{run.epoch - self.passed} epochs ago"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"passed": self.passed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.passed = state["passed"]


class ShowProgress(Callback):
    """Call ``advance(steps, note)`` after each step, for a progress bar; the note is the newest result."""

    name = "progress"
    order = 50

    def __init__(self, advance: Callable[..., object]) -> None:
        self.advance = advance
        self._note = ""

    def on_start(self, run: Run) -> None:
        self._describe(run)
        self.advance(run.step, self._note)

    def on_step(self, run: Run) -> None:
        self.advance(1, self._note)

    def on_epoch_end(self, run: Run) -> None:
        self._describe(run)
        self.advance(0, self._note)

    def _describe(self, run: Run) -> None:
        if run.history.epochs:
            row = run.history.final
            name = "accuracy" if "test_accuracy" in row else "loss"  # numbers have no accuracy
            self._note = f"epoch {run.epoch}/{run.epochs}, test {name} {row[f'test_{name}']:.4f}"
