"""Callbacks: order, stopping rules, what they note."""

from typing import Any

import pytest
import torch
from torch import nn

from regraft import Evolve, RowNormalise, models, sparsify
from regraft.data import Data
from regraft.errors import InputError
from regraft.evolve import row_norms
from regraft.train import (
    AfterStep,
    Callback,
    EarlyStopping,
    History,
    Hooks,
    Run,
    ShowProgress,
    StopAfterAccuracy,
    fit,
)


class Watch(Callback):
    """Notes what is called."""

    def __init__(self, calls: list[str], name: str = "watch", order: int = 0) -> None:
        self.calls, self.name, self.order = calls, name, order

    def on_start(self, run: Run) -> None:
        self.calls.append(f"{self.name} start")

    def on_epoch_start(self, run: Run) -> None:
        self.calls.append(f"{self.name} epoch {run.epoch}")

    def on_step(self, run: Run) -> None:
        self.calls.append(f"{self.name} step {run.step}")

    def on_epoch_end(self, run: Run) -> None:
        self.calls.append(f"{self.name} end of epoch {run.epoch}")

    def on_end(self, run: Run) -> None:
        self.calls.append(f"{self.name} end")


def train(data: Data, *callbacks: Callback, epochs: int = 2, **options: Any) -> tuple[nn.Module, History]:
    g = torch.Generator().manual_seed(0)
    model = sparsify(models.build("mlp:8-12-4", generator=g), density=0.5, generator=g)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"batch_size": 26, **options}
    return model, fit(model, data, epochs=epochs, optimizer=optimizer, callbacks=callbacks, **options)


def test_hooks_are_called_in_order(data: Data) -> None:
    calls: list[str] = []
    train(data, Watch(calls, "late", order=5), Watch(calls, "a"), Watch(calls, "b"), epochs=1)
    each = [c.removeprefix("a ") for c in calls if c.startswith("a ")]
    assert each == ["start", "epoch 0", "step 1", "step 2", "end of epoch 1", "end"]
    assert [c.split()[0] for c in calls] == ["a", "b", "late"] * len(each)


def fake(model: nn.Module, name: str, values: list[float]) -> Callback:
    """Puts ``values`` into the history in place of what was measured."""
    return Hooks(epoch_end=lambda run: run.history.final.update({name: values[run.epoch - 1]}), name="fake")


def test_early_stopping_waits_for_its_patience(data: Data) -> None:
    losses = [3.0, 2.0, 2.5, 2.2, 2.1, 1.0]
    _, history = train(data, fake(nn.Identity(), "test_loss", losses), EarlyStopping(3), epochs=6)
    assert len(history.epochs) == 5
    assert history.stopped == "test_loss has not become better since epoch 2"


def test_early_stopping_on_accuracy_with_a_margin(data: Data) -> None:
    accuracies = [0.5, 0.509, 0.52, 0.525, 0.6]
    watch = EarlyStopping(2, monitor="test_accuracy", min_delta=0.01)
    _, history = train(data, fake(nn.Identity(), "test_accuracy", accuracies), watch, epochs=5)
    assert (len(history.epochs), watch.best_epoch, history.stopped) == (5, 5, None)


def test_early_stopping_restores_the_best_network_and_its_topology(data: Data) -> None:
    g = torch.Generator().manual_seed(0)
    model = sparsify(models.build("mlp:8-12-4", generator=g), density=0.5, generator=g)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    evolver = Evolve(every=1, generator=g).attach(model, optimizer)
    kept: dict[int, dict[str, torch.Tensor]] = {}
    losses = [3.0, 1.0, 2.0, 2.0]

    def keep(run: Run) -> None:
        kept[run.epoch] = {k: v.clone() for k, v in run.model.state_dict().items()}

    history = fit(
        model, data, epochs=4, optimizer=optimizer, evolver=evolver, batch_size=26,
        callbacks=[fake(model, "test_loss", losses), Hooks(epoch_end=keep, name="keep"),
                   EarlyStopping(2, restore_best=True)],
    )  # fmt: skip
    assert len(history.epochs) == 4
    assert all(torch.equal(kept[2][k], v) for k, v in model.state_dict().items())
    assert kept[2]["fc1.weight.index"].tolist() != kept[4]["fc1.weight.index"].tolist()


def test_early_stopping_watches_validation_where_there_is_one(data: Data) -> None:
    both = Data("both", data.train, data.test, data.class_names, validation=data.test)
    watch = EarlyStopping(1)
    _, history = train(both, fake(nn.Identity(), "validation_loss", [1.0, 2.0, 3.0]), watch, epochs=3)
    assert history.stopped == "validation_loss has not become better since epoch 1"


def test_early_stopping_errors(data: Data) -> None:
    with pytest.raises(InputError, match="patience is 0"):
        EarlyStopping(0)
    with pytest.raises(InputError, match="min_delta is -1"):
        EarlyStopping(1, min_delta=-1)
    with pytest.raises(InputError, match="watches 'test_acuracy', but the history has 'epoch'"):
        train(data, EarlyStopping(1, monitor="test_acuracy"))


@pytest.mark.parametrize(("restart", "epochs"), [(False, 4), (True, 7)])
def test_stop_some_epochs_after_an_accuracy(data: Data, restart: bool, epochs: int) -> None:
    accuracies = [0.5, 0.9, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9]
    rule = StopAfterAccuracy(0.85, extra=2, restart=restart)
    if restart:
        rule = StopAfterAccuracy(0.85, extra=3, restart=True)
    _, history = train(data, fake(nn.Identity(), "test_accuracy", accuracies), rule, epochs=8)
    assert len(history.epochs) == epochs
    assert "passed 0.85" in str(history.stopped)


def test_the_threshold_must_be_passed_not_met(data: Data) -> None:
    rule = StopAfterAccuracy(0.9, extra=0)
    _, history = train(data, fake(nn.Identity(), "test_accuracy", [0.9, 0.9]), rule)
    assert history.stopped is None


def test_stop_after_accuracy_errors() -> None:
    with pytest.raises(InputError, match=r"0\.85 is 85 %"):
        StopAfterAccuracy(85)
    with pytest.raises(InputError, match="extra epochs are -1"):
        StopAfterAccuracy(0.5, extra=-1)


def test_rows_stay_normalised(data: Data) -> None:
    seen: list[float] = []

    def look(run: Run) -> None:
        norms = torch.cat([row_norms(w) for w in (run.model.fc1.weight, run.model.fc2.weight)])
        seen.append((norms[norms > 0] - 1).abs().max().item())

    g = torch.Generator().manual_seed(0)
    model = sparsify(models.build("mlp:8-12-4", generator=g), density=0.5, generator=g)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    fit(
        model, data, epochs=2, optimizer=optimizer, batch_size=26,
        evolver=Evolve(every=1, generator=g).attach(model, optimizer),
        callbacks=[AfterStep(RowNormalise().attach(model)), Hooks(step=look)],
    )  # fmt: skip
    assert len(seen) == 4
    assert max(seen) < 1e-6


def test_progress_counts_every_step_once(data: Data) -> None:
    steps: list[int] = []
    notes: list[str] = []

    def advance(n: int, note: str) -> None:
        steps.append(n)
        notes.append(note)

    train(data, ShowProgress(advance), epochs=3)
    assert sum(steps) == 6
    assert notes[-1].startswith("epoch 3/3, test accuracy 0.")


def test_callbacks_may_add_figures(data: Data) -> None:
    _, history = train(data, Hooks(step=lambda run: run.figures.update(steps=run.step)))
    assert history.column("steps") == [2, 4]
    assert [str(v) for v in history.column("nothing")] == ["nan", "nan"]


def test_an_empty_history_has_no_last_line() -> None:
    with pytest.raises(InputError, match="no epoch"):
        _ = History().final
