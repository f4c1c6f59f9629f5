"""The history as TensorBoard scalars; needs the extra ``tensorboard``."""

from __future__ import annotations

import os
from typing import Any

from regraft.container import telling
from regraft.errors import MissingDependency
from regraft.train.run import Callback, Run


class TensorBoard(Callback):
    """Write each epoch's figures to a folder that ``tensorboard --logdir`` shows.

    Raises:
        MissingDependency: TensorBoard is not installed.
        FileError: the folder cannot be written to (when the training runs).
    """

    name = "tensorboard"
    order = 60

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingDependency("tensorboard", "tensorboard", "writing TensorBoard files") from None
        self.folder = os.fspath(folder)
        self._open: Any = SummaryWriter
        self._writer: Any = None

    def on_start(self, run: Run) -> None:
        # a resumed run takes back what an interrupted one wrote after the checkpoint
        with telling(self.folder):
            self._writer = self._open(self.folder, purge_step=run.epoch + 1 if run.epoch else None)

    def on_epoch_end(self, run: Run) -> None:
        with telling(self.folder):
            for figure, value in run.history.final.items():
                if figure != "epoch":
                    self._writer.add_scalar(figure.replace("_", "/", 1), value, run.epoch)
            self._writer.flush()

    def on_end(self, run: Run) -> None:
        with telling(self.folder):
            self._writer.close()
