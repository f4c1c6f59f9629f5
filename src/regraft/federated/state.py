"""A server's state on disk: the model after each round, from which the next one starts."""

from __future__ import annotations

import contextlib
import copy
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from regraft import checkpoint
from regraft.container import only_one
from regraft.errors import FileError, MismatchError
from regraft.files import read_network

_NAME = "round-{:06d}.safetensors"
_KEPT = 2  # the model before the last one too: its topology is what clients have


@dataclass
class State:
    """Where a federation stands.

    Attributes:
        model: the global model after ``len(history)`` rounds.
        previous: the model that clients were sent in the last round; None before the first.
        history: one dict per round, plain JSON values.
    """

    model: nn.Module
    previous: nn.Module | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def round(self) -> int:
        """The round that comes next."""
        return len(self.history)


def save(state: State, folder: str | os.PathLike[str], config: Mapping[str, Any]) -> Path:
    """Write the model after the last round, whole or not at all, and forget all but the last two files.

    Each is a network file like any other, so that the last good model is at hand whatever happens.

    Args:
        config: what must be equal for the federation to be resumed; plain JSON values.

    Raises:
        FileError: the folder cannot be made or written to.
    """
    folder = Path(folder)
    _make(folder)
    path = folder / _NAME.format(state.round)
    told = {"federation": {"config": dict(config), "history": state.history}}
    checkpoint.save(state.model, path, provenance=told)
    for old in _files(folder)[:-_KEPT]:
        old.unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def held(folder: str | os.PathLike[str] | None) -> Iterator[None]:
    """Within the block no other federation may keep its state in the folder, which is made if need be.

    Raises:
        FileError: another one does, or the folder cannot be made or written to.
    """
    if folder is None:
        yield
        return
    _make(Path(folder))
    with only_one(folder):
        yield


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the folder '{folder}': {error.strerror or error}") from error


def find(folder: str | os.PathLike[str]) -> Path | None:
    """The newest file of a federation's state, or None."""
    files = _files(Path(folder))
    return files[-1] if files else None


def load(folder: str | os.PathLike[str], model: nn.Module, config: Mapping[str, Any]) -> State:
    """The state that was saved last.

    Args:
        model: one of the architecture, which is filled.
        config: of the federation that goes on.

    Raises:
        FileError: nothing there, or damaged.
        MismatchError: it was saved with another config, or the model is another.
    """
    files = _files(Path(folder))
    if not files:
        raise FileError(f"'{folder}' holds no state of a federation: start anew, or give another folder")
    told = read_network(files[-1])[1].provenance.get("federation")
    if not isinstance(told, dict) or not isinstance(told.get("history"), list):
        raise FileError(f"'{files[-1]}' is not the state of a federation")
    was = told.get("config", {})
    if not isinstance(was, dict):
        raise FileError(f"'{files[-1]}' is not the state of a federation: its options are damaged")
    for option in (*config, *was):
        if was.get(option) != config.get(option):
            raise MismatchError(
                f"'{folder}' is of a federation with {option} = {was.get(option)!r}, but now it is "
                f"{config.get(option)!r}: resume with the same options, or give another folder"
            )
    before = [path for path in files[:-1] if _number(path) == _number(files[-1]) - 1]
    previous = checkpoint.load(before[0], into=copy.deepcopy(model)) if before else None
    return State(checkpoint.load(files[-1], into=copy.deepcopy(model)), previous, list(told["history"]))


def _files(folder: Path) -> list[Path]:
    found = folder.glob("round-*.safetensors") if folder.is_dir() else ()
    return sorted((p for p in found if re.fullmatch(r"round-\d{6,}\.safetensors", p.name)), key=_number)


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("round-"))
