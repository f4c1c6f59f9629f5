"""Training checkpoints: everything of a run in one safetensors file, from which it goes on bit for bit."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from regraft import checkpoint, container, files
from regraft.errors import FileError, InputError, MismatchError, RegraftError
from regraft.train import tree
from regraft.train.run import Callback, History, Run

FORMAT = 1
"""The newest checkpoint format that this version reads, and the one it writes."""

FILE = "training.safetensors"
"""Name of the checkpoint in its folder."""

KEY = checkpoint.TRAINING


class Checkpoint(Callback):
    """Write the whole run to ``folder/training.safetensors``, each time in place of the one before.

    The file is written under another name, flushed and renamed, so that whenever the process dies there is
    either the old checkpoint or the new one. A run whose weights are no longer finite is not written.

    Args:
        folder: created if it does not exist.
        every_epochs: write after every so many epochs, and after the last; 0 for never.
        every_steps: also write after every so many optimizer steps.

    Raises:
        InputError: a number that is not a whole number.
        FileError: the folder cannot be made or written to.
    """

    name = "checkpoint"
    order = 100

    def __init__(
        self, folder: str | os.PathLike[str], *, every_epochs: int = 1, every_steps: int | None = None
    ) -> None:
        if every_epochs < 0 or (every_steps is not None and every_steps < 1):
            raise InputError(
                f"every_epochs is {every_epochs!r} and every_steps is {every_steps!r}: give whole numbers, "
                "0 epochs for never"
            )
        self.path = Path(folder) / FILE
        self.every_epochs, self.every_steps = every_epochs, every_steps
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot make the folder '{folder}': {error.strerror or error}") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise FileError(f"cannot write checkpoints: no permission to write in the folder '{folder}'")

    def on_start(self, run: Run) -> None:
        if self.path.exists() and run.step:
            self.kept = str(self.path)

    def on_step(self, run: Run) -> None:
        if self.every_steps and run.step % self.every_steps == 0:
            self._save(run)

    def on_epoch_end(self, run: Run) -> None:
        last = run.epoch == run.epochs or run.history.stopped is not None
        if self.every_epochs and (last or run.epoch % self.every_epochs == 0):
            self._save(run)

    def _save(self, run: Run) -> None:
        save(run, self.path)
        self.kept = str(self.path)


@contextlib.contextmanager
def held(callbacks: Iterable[Callback]) -> Iterator[None]:
    """Within the block no other training may write into the folders of these checkpoints.

    Raises:
        FileError: another one does, or a folder cannot be written to.
    """
    with contextlib.ExitStack() as folders:
        for folder in {c.path.parent.resolve() for c in callbacks if isinstance(c, Checkpoint)}:
            folders.enter_context(container.only_one(folder))
        yield


def find(folder: str | os.PathLike[str]) -> Path | None:
    """The checkpoint in a folder, or None."""
    path = Path(folder) / FILE
    return path if path.is_file() else None


def config_of(run: Run, more: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal for a run to be resumed: options, data, and how everything was at the start."""
    scheduler = None if run.scheduler is None else type(run.scheduler).__name__
    groups = [
        {k: v for k, v in group.items() if k != "params"} | {"parameters": len(group["params"])}
        for group in run.optimizer.param_groups
    ]
    config = {
        **more,
        "epochs": run.epochs,
        "batch_size": run.loader.batch_size,
        "model": getattr(run.model, "spec", None),
        "parameters": [name for name, _ in run.model.named_parameters()],
        "optimizer": {"type": type(run.optimizer).__name__, "groups": groups},
        "scheduler": {
            "type": scheduler,
            "state": None if run.scheduler is None else run.scheduler.state_dict(),
        },
        "data": {k: v for k, v in run.data.describe().items() if k != "scaling"},
        "callbacks": sorted(c.name for c in run.callbacks if c.state_dict()),
    }
    plain, tensors = tree.encode(config, "config")
    return cast(dict[str, Any], json.loads(json.dumps(_with_numbers(plain, tensors))))


def _with_numbers(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Options that are tensors (a learning rate, say) by their numbers."""
    if isinstance(value, dict):
        if value.get("$") == "tensor":
            return tensors[value["name"]].tolist()
        return {k: _with_numbers(v, tensors) for k, v in value.items()}
    return [_with_numbers(v, tensors) for v in value] if isinstance(value, list) else value


def state_of(run: Run) -> dict[str, Any]:
    """Everything that the rest of the run depends on, as one tree."""
    return {
        "model": dict(run.model.state_dict()),
        "optimizer": run.optimizer.state_dict(),
        "scheduler": None if run.scheduler is None else run.scheduler.state_dict(),
        "loader": run.loader.state_dict(),
        "callbacks": {c.name: state for c in run.callbacks if (state := c.state_dict())},
        "random": {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(run.device) if run.device.type == "cuda" else None,
        },
        "epoch": run.epoch,
        "batch": run.batch,
        "step": run.step,
        "losses": run.losses,
        "figures": run.figures,
        "history": {"epochs": run.history.epochs, "stopped": run.history.stopped, "step": run.history.step},
    }


def save(run: Run, path: str | os.PathLike[str]) -> None:
    """Write a run to a file, whole or not at all.

    Raises:
        InputError: weights or losses that are NaN or infinite; a state that a checkpoint cannot hold.
        FileError: the file cannot be written.
    """
    run.check_losses()
    for name, tensor in run.model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise run.diverged(f"'{name}' holds NaN or infinite values", run.batch or len(run.losses))
    plain, tensors = tree.encode(state_of(run), "run")
    header = {"format": FORMAT, "versions": files.versions(), "config": run.config, "run": plain}
    entries, at = {}, 0
    ordered = sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize)  # so that all are aligned
    for name in ordered:
        if tensors[name].dtype not in container.CODES:
            raise InputError(f"'{name}' is of type {tensors[name].dtype}, which a checkpoint cannot hold")
        entries[name] = container.Entry(tensors[name].dtype, tuple(tensors[name].shape), at)
        at += entries[name].nbytes
    with container.atomic_write(path) as file:
        file.write(container.header_bytes(entries, {KEY: json.dumps(header, allow_nan=False)}))
        for name in ordered:
            file.write(container.tensor_bytes(tensors[name]))


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(config, state) of a checkpoint.

    Raises:
        FileError: missing, truncated, corrupt, of a newer format, or not a training checkpoint.
    """
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise FileError(f"cannot open the checkpoint '{path}': {error.strerror or error}") from error
    with file:
        entries, metadata = container.read_table(file, path)
        if KEY not in metadata:
            raise FileError(
                f"'{path}' is not a training checkpoint: one written by Checkpoint or by "
                "`regraft train --checkpoint` was expected"
            )
        header = container.parse_json(metadata[KEY])
        version = header.get("format") if isinstance(header, dict) else None
        if not isinstance(version, int) or version < 1:
            raise container.corrupt(path, "its header has no format number")
        if version > FORMAT:
            raise FileError(
                f"the checkpoint '{path}' has format {version}, but this regraft reads formats up to "
                f"{FORMAT}: upgrade regraft"
            )
        tensors = {}
        for name, entry in entries.items():
            raw = container.read_elements(file, entry, 0, entry.numel)
            if raw is None:
                raise container.truncated(path, f"the tensor '{name}' is incomplete")
            flat = (
                torch.from_numpy(raw).view(entry.dtype) if raw.nbytes else torch.empty(0, dtype=entry.dtype)
            )
            tensors[name] = flat.view(entry.shape)
    try:
        config, state = header["config"], tree.decode(header["run"], tensors)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise container.corrupt(path, f"its header is malformed: {error!r}") from error
    if not isinstance(config, dict) or not isinstance(state, dict):
        raise container.corrupt(path, "its header has no config or no state")
    return config, state


def restore(run: Run, path: str | os.PathLike[str]) -> None:
    """Put a checkpoint's state into a run that was set up as the first time.

    Raises:
        FileError: as for ``read``.
        MismatchError: the run was set up otherwise than the one that wrote the checkpoint.
    """
    config, state = read(path)
    difference = _difference(config, run.config)
    if difference is not None:
        where, was, now = difference
        raise MismatchError(
            f"the checkpoint '{path}' was made with {where} = {was}, but now it is {now}: resume with the "
            "same options, or start anew with another checkpoint folder"
        )
    try:
        _take_over(run, state)
    except RegraftError as error:
        raise MismatchError(f"the checkpoint '{path}' does not fit this run: {error}") from error
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise container.corrupt(path, f"its state cannot be loaded: {error!r}") from error


def _take_over(run: Run, state: Mapping[str, Any]) -> None:
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    if run.scheduler is not None:
        run.scheduler.load_state_dict(state["scheduler"])
    run.loader.load_state_dict(state["loader"])
    for callback in run.callbacks:
        if callback.name in state["callbacks"]:
            callback.load_state_dict(state["callbacks"][callback.name])
    run.losses.copy_(state["losses"])
    counters = state["epoch"], state["batch"], state["step"]
    if not all(isinstance(n, int) and n >= 0 for n in counters) or state["batch"] > len(run.losses):
        raise ValueError(f"the counters {counters}")
    run.epoch, run.batch, run.step = counters
    # torch's schedules warn where no step of this optimizer object came before theirs
    run.optimizer._opt_called = run.step > 0  # type: ignore[attr-defined]
    run.figures = dict(state["figures"])
    history = state["history"]
    run.history = History(list(history["epochs"]), history["stopped"], history.get("step"))
    torch.set_rng_state(state["random"]["cpu"])
    if state["random"]["cuda"] is not None and run.device.type == "cuda":
        torch.cuda.set_rng_state(state["random"]["cuda"], run.device)


def _difference(was: Any, now: Any, where: str = "") -> tuple[str, str, str] | None:
    """The first place where two plain values differ: (path, value before, value now)."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in (*was, *(k for k in now if k not in was)):
            found = _difference(was.get(key), now.get(key), f"{where}.{key}" if where else str(key))
            if found is not None:
                return found
        return None
    if was == now:
        return None
    show: Callable[[Any], str] = lambda value: text if len(text := repr(value)) <= 60 else text[:57] + "..."
    return where, show(was), show(now)
