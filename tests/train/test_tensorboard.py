"""TensorBoard gets each figure of each epoch; without the package the message says what to install."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from regraft.data import Data
from regraft.errors import MissingDependency
from regraft.train import Checkpoint, History, TensorBoard, checkpoints, fit


class Writer:
    """Stands in for torch's SummaryWriter."""

    made: list["Writer"] = []  # noqa: RUF012

    def __init__(self, folder: str, purge_step: int | None = None) -> None:
        self.folder, self.purge_step = folder, purge_step
        self.scalars: list[tuple[str, float, int]] = []
        self.closed = False
        Writer.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[Writer]:
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    Writer.made = []
    return Writer.made


def train(data: Data, *callbacks: Any, **options: Any) -> History:
    model = nn.Linear(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    return fit(model, data, epochs=2, optimizer=optimizer, callbacks=callbacks, **options)


def test_every_figure_of_every_epoch(data: Data, tmp_path: Path, writers: list[Writer]) -> None:
    history = train(data, TensorBoard(tmp_path))
    (writer,) = writers
    assert (writer.folder, writer.purge_step, writer.closed) == (str(tmp_path), None, True)
    assert ("test/accuracy", history.epochs[0]["test_accuracy"], 1) in writer.scalars
    assert ("train/loss", history.epochs[1]["train_loss"], 2) in writer.scalars
    assert len(writer.scalars) == 2 * (len(history.final) - 1)


def test_a_resumed_run_purges_what_came_after(data: Data, tmp_path: Path, writers: list[Writer]) -> None:
    train(data, Checkpoint(tmp_path))
    train(data, Checkpoint(tmp_path), TensorBoard(tmp_path), resume=checkpoints.find(tmp_path))
    assert writers[0].purge_step == 3


def test_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependency, match="tensorboard"):
        TensorBoard(tmp_path)
