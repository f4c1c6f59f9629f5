"""A run interrupted after any step and resumed gives the same bits; other checkpoints are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.train.toys import Everything, equal, state, without_times

from regraft import checkpoint, models, sparsify
from regraft.data import Data
from regraft.errors import FileError, InputError, MismatchError
from regraft.train import Callback, Checkpoint, Hooks, Run, checkpoints, fit

STEPS = 21  # 3 epochs of 7


class Crash(Exception):
    """Stands for the end of the process."""


class CrashAt(Callback):
    """Ends the run after a step, after the checkpoint of that step (if any) was written."""

    name = "crash"
    order = 1000

    def __init__(self, step: int, when: str = "step") -> None:
        self.step, self.when = step, when

    def on_step(self, run: Run) -> None:
        if self.when == "step" and run.step == self.step:
            raise Crash

    def on_epoch_end(self, run: Run) -> None:
        if self.when == "epoch" and run.step == self.step:
            raise Crash


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "adagrad", "rprop"])
@pytest.mark.parametrize("every_steps", [None, 1, 3])
def test_interrupted_anywhere(optimizer: str, every_steps: int | None, tmp_path: Path) -> None:
    whole = Everything(optimizer)
    expected = whole.fit()
    often = (*range(1, STEPS + 1, 2), 2, 6, 14)
    crashes = often if (optimizer, every_steps) == ("adam", 3) else (2, 7, 20)
    for step in crashes:
        folder = tmp_path / str(step)
        with pytest.raises(Crash):
            Everything(optimizer).fit(Checkpoint(folder, every_steps=every_steps), CrashAt(step))
        again = Everything(optimizer)
        torch.manual_seed(step)  # another process has another global state
        history = again.fit(Checkpoint(folder, every_steps=every_steps), resume=checkpoints.find(folder))
        assert equal(state(whole.model), state(again.model)), step
        assert without_times(history) == without_times(expected)
        assert [e.dropped for e in again.evolver.history] == [e.dropped for e in whole.evolver.history]


def test_interrupted_several_times(tmp_path: Path) -> None:
    whole = Everything()
    whole.fit()
    for step in (2, 3, 8, 13, 14, 20):
        with pytest.raises(Crash):
            Everything().fit(
                Checkpoint(tmp_path, every_steps=1), CrashAt(step), resume=checkpoints.find(tmp_path)
            )
    last = Everything()
    last.fit(Checkpoint(tmp_path), resume=checkpoints.find(tmp_path))
    assert equal(state(whole.model), state(last.model))


def test_a_finished_run_is_resumed_at_its_end(tmp_path: Path) -> None:
    whole = Everything()
    expected = whole.fit(Checkpoint(tmp_path))
    again = Everything()
    steps: list[int] = []
    history = again.fit(
        Checkpoint(tmp_path),
        Hooks(step=lambda run: steps.append(run.step)),
        resume=checkpoints.find(tmp_path),
    )
    assert steps == []
    assert equal(state(whole.model), state(again.model))
    assert history == expected


def test_a_run_that_stopped_early_stays_stopped(data: Data, tmp_path: Path) -> None:
    def run(resume: Path | None) -> Any:
        model = models.build("mlp:8-4", generator=torch.Generator().manual_seed(0))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        stop = Hooks(epoch_end=lambda run: run.stop("enough") if run.epoch == 2 else None)
        return fit(
            model, data, epochs=5, optimizer=optimizer, callbacks=[stop, Checkpoint(tmp_path)], resume=resume
        )

    assert run(None).stopped == "enough"
    history = run(checkpoints.find(tmp_path))
    assert (history.stopped, len(history.epochs)) == ("enough", 2)


def test_a_write_that_fails_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Crash):
        Everything().fit(Checkpoint(tmp_path), CrashAt(7, "epoch"))
    before = (tmp_path / checkpoints.FILE).read_bytes()

    def full(*_: object) -> memoryview:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.container, "tensor_bytes", full)
        with pytest.raises(OSError, match="space"):
            Everything().fit(Checkpoint(tmp_path), resume=checkpoints.find(tmp_path))
    assert (tmp_path / checkpoints.FILE).read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [checkpoints.FILE]


def test_divergence_keeps_the_last_good_checkpoint(data: Data, tmp_path: Path) -> None:
    def spoil(run: Run) -> None:
        if run.step == 9:
            run.model.fc1.bias.data[0] = torch.inf

    model = sparsify(models.build("mlp:8-6-4"), density=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(
        InputError, match=r"'fc1\.bias' holds NaN.* epoch 2, step 2 .*last good checkpoint is"
    ):
        fit(
            model, data, epochs=3, optimizer=optimizer, batch_size=8,
            callbacks=[Hooks(step=spoil), Checkpoint(tmp_path, every_steps=1)],
        )  # fmt: skip
    _, kept = checkpoints.read(tmp_path / checkpoints.FILE)
    assert kept["step"] == 8
    assert all(torch.isfinite(t).all() for t in kept["model"].values())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 4}, "seed = 3, but now it is 4"),
        ({"batch_size": 9}, "batch_size = 8, but now it is 9"),
        ({"epochs": 4}, "epochs = 3, but now it is 4"),
        ({"loss": "mse"}, "loss = 'cross-entropy', but now it is 'mse'"),
        ({"config": {"dropout": 0.1}}, "dropout = None, but now it is 0.1"),
        ({"scheduler": None}, "scheduler.type = 'LambdaLR', but now it is None"),
        ({"evolver": None}, "callbacks = ['early-stopping', 'evolve'], but now it is ['early-stopping']"),
    ],
)
def test_changed_options_are_named(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    Everything().fit(Checkpoint(tmp_path))
    with pytest.raises(MismatchError) as error:
        Everything().fit(resume=checkpoints.find(tmp_path), **change)
    assert says in str(error.value)
    assert "resume with the same options" in str(error.value)


def test_changed_objects_are_named(tmp_path: Path) -> None:
    Everything().fit(Checkpoint(tmp_path))
    for group, lr in ((0, 0.02),):
        other = Everything()
        other.optimizer.param_groups[group]["lr"] = lr
        with pytest.raises(MismatchError, match=r"groups = .*0\.02|lr = 0\.01, but now it is 0\.02"):
            other.fit(resume=checkpoints.find(tmp_path))
    with pytest.raises(MismatchError, match=r"optimizer\.type = 'Adam', but now it is 'SGD'"):
        Everything("sgd").fit(resume=checkpoints.find(tmp_path))


def saved(tmp_path: Path) -> Path:
    Everything().fit(Checkpoint(tmp_path))
    return tmp_path / checkpoints.FILE


def edited(path: Path, edit: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> None:
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()[checkpoints.KEY])
    tensors = load_file(path)
    edit(header, tensors)
    save_file(tensors, path, {checkpoints.KEY: json.dumps(header)})


def test_newer_format(tmp_path: Path) -> None:
    path = saved(tmp_path)
    edited(path, lambda header, _: header.update(format=2))
    with pytest.raises(FileError, match="has format 2, but this regraft reads formats up to 1: upgrade"):
        Everything().fit(resume=path)


def test_truncated_missing_and_foreign_files(tmp_path: Path) -> None:
    path = saved(tmp_path)
    whole = path.read_bytes()
    for length in (0, 7, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FileError, match="training"):
            Everything().fit(resume=path)
    with pytest.raises(FileError, match="cannot open the checkpoint"):
        Everything().fit(resume=tmp_path / "nowhere")
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(FileError, match="not a training checkpoint"):
        Everything().fit(resume=path)


def test_a_training_checkpoint_is_not_a_network(tmp_path: Path) -> None:
    path = saved(tmp_path)
    for read in (checkpoint.load, checkpoint.read_header):
        with pytest.raises(FileError, match=r"unfinished training.*--resume"):
            read(path)


def drop_tensor(name: str) -> Callable[[dict[str, Any], dict[str, torch.Tensor]], None]:
    def drop(_: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        del tensors[name]

    return drop


@pytest.mark.parametrize(
    "edit",
    [
        lambda header, _: header.update(format="1"),
        lambda header, _: header["run"].update(epoch="one"),
        lambda header, _: header["run"].update(batch=99),
        lambda header, _: header["run"].pop("history"),
        lambda header, _: header["run"]["loader"].pop("order"),
        lambda header, _: header["run"].update(callbacks={"evolve": {}}),
        lambda header, _: header.pop("run"),
        drop_tensor("run.model.fc1.weight.values"),
        drop_tensor("run.random.cpu"),
        lambda _, tensors: tensors.update({"run.losses": torch.zeros(2)}),
        lambda _, tensors: tensors.update({"run.random.cpu": torch.zeros(3, dtype=torch.uint8)}),
        lambda _, tensors: tensors["run.model.fc1.weight.index"].mul_(-1),
    ],
)
def test_damaged_checkpoints(edit: Any, tmp_path: Path) -> None:
    path = saved(tmp_path)
    edited(path, edit)
    with pytest.raises((FileError, MismatchError), match=r"training\.safetensors"):
        Everything().fit(resume=path)


def test_state_that_cannot_be_written_is_named(data: Data, tmp_path: Path) -> None:
    class Odd(Callback):
        name = "odd"

        def state_dict(self) -> dict[str, Any]:
            return {"thing": object()}

    model = models.build("mlp:8-4")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(InputError, match=r"callbacks\.odd\.thing' holds a object"):
        fit(model, data, epochs=1, optimizer=optimizer, callbacks=[Odd(), Checkpoint(tmp_path)])


def test_folders(tmp_path: Path) -> None:
    assert checkpoints.find(tmp_path / "none") is None
    Checkpoint(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot make the folder"):
        Checkpoint(tmp_path / "file")
    with pytest.raises(InputError, match="every_steps is 0"):
        Checkpoint(tmp_path, every_steps=0)


def test_every_so_many_epochs_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    monkeypatch.setattr(checkpoints, "save", lambda run, path: written.append(run.epoch))
    Everything(epochs=5).fit(Checkpoint(tmp_path, every_epochs=2))
    assert written == [2, 4, 5]
    written.clear()
    Everything(epochs=2).fit(Checkpoint(tmp_path, every_epochs=0, every_steps=10))
    assert written == [1]
