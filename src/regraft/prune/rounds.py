"""The state of pruning in rounds, in memory and in a folder, so that a killed run goes on."""

from __future__ import annotations

import contextlib
import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regraft import files
from regraft.container import is_shape, only_one
from regraft.errors import FileError, InputError, MismatchError, RegraftError
from regraft.files import Header, PathLike
from regraft.prune.apply import apply
from regraft.topology import Topology

FILE = "rounds.safetensors"
"""Name of the state's file in its folder."""


@dataclass(frozen=True)
class Round:
    """One round: a training, then a pruning.

    Attributes:
        number: from 1.
        trained_density: density of the network that was trained.
        metric: what that training returned.
        density: density after the pruning.
        counts: connections of each weight after the pruning.
    """

    number: int
    trained_density: float
    metric: float | None
    density: float
    counts: Mapping[str, int]


@dataclass
class State:
    """Between two rounds: the network to train next, and what it is rewound to (None: weights are kept)."""

    model: nn.Module
    point: nn.Module | None
    topology: Topology = field(default_factory=lambda: Topology({}))
    history: list[Round] = field(default_factory=list)


class Saved:
    """The state in ``folder/rounds.safetensors``, each time in place of the one before; or nowhere.

    Raises:
        FileError: the folder cannot be made.
    """

    def __init__(
        self,
        folder: PathLike | None,
        config: Mapping[str, Any],
        generators: Sequence[torch.Generator | None],
    ) -> None:
        self._path = None if folder is None else Path(folder) / FILE
        self._config = json.loads(json.dumps(config))
        self._generators = {str(i): g for i, g in enumerate(generators) if g is not None}
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise FileError(f"cannot make the folder '{folder}': {error.strerror or error}") from error

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within the block no other pruning may keep its rounds in the folder.

        Raises:
            FileError: another one does, or the folder cannot be written to.
        """
        if self._path is None:
            yield
            return
        with only_one(self._path.parent):
            yield

    def save(self, state: State) -> None:
        """Write the state, whole or not at all.

        Raises:
            InputError: weights that are NaN or infinite, or a state that is no tensor.
            FileError: the file cannot be written.
        """
        if self._path is None:
            return
        tensors = {f"topology.{name}": c.index for name, c in state.topology.items()}
        for name, value in (state.model if state.point is None else state.point).state_dict().items():
            if not isinstance(value, Tensor):
                raise InputError(
                    f"the model's state '{name}' is a {type(value).__name__}, which folder= cannot hold"
                )
            tensors[f"model.{name}"] = value
        tensors |= {f"random.{name}": g.get_state() for name, g in self._generators.items()}
        history = [asdict(row) for row in state.history]
        shapes = {name: c.shape for name, c in state.topology.items()}
        provenance = {"pruning": self._config, "history": history, "weights": shapes}
        files.write_network(self._path, tensors, Header(provenance=provenance))

    def load(self, model: nn.Module, *, rewinds: bool) -> State | None:
        """The state after the last round that was saved, or None. ``model`` is a new network, which is used.

        Raises:
            MismatchError: the file is of another call, or ``model`` is another network.
            FileError: the file cannot be read.
        """
        if self._path is None or not self._path.exists():
            return None
        tensors, header = files.read_network(self._path)
        kept = header.provenance
        forms = {"pruning": dict, "history": list, "weights": dict}
        whole = all(isinstance(kept.get(part), form) for part, form in forms.items())
        if not whole or not all(is_shape(shape) for shape in kept["weights"].values()):
            raise FileError(f"'{self._path}' is not the state of a pruning: give another folder")
        self._compare(kept["pruning"])
        parts: dict[str, dict[str, Tensor]] = {"topology": {}, "model": {}, "random": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = tensor
        try:
            topology = Topology({n: (tuple(s), parts["topology"][n]) for n, s in kept["weights"].items()})
            history = [_round(row) for row in kept["history"]]
            if not rewinds:
                apply(model, topology)
            model.load_state_dict(parts["model"])
            for name, generator in self._generators.items():
                generator.set_state(parts["random"][name])
        except (RegraftError, RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise MismatchError(
                f"'{self._path}' does not fit the network of this call ({error}): give another folder"
            ) from error
        if not rewinds:
            return State(model, None, topology, history)
        return State(apply(copy.deepcopy(model), topology), model, topology, history)

    def _compare(self, theirs: Mapping[str, Any]) -> None:
        for name, value in self._config.items():
            if theirs.get(name) != value:
                raise MismatchError(
                    f"'{self._path}' holds rounds with {name} {theirs.get(name)!r}, but this call has "
                    f"{value!r}: give another folder, or delete the file"
                )


def _round(row: Mapping[str, Any]) -> Round:
    """A round as a file has it."""
    made = Round(**row)
    numbers = (made.trained_density, made.density, *made.counts.values())
    whole = type(made.number) is int and isinstance(made.metric, int | float | None)
    if not whole or not all(isinstance(n, int | float) for n in numbers):
        raise ValueError(f"the round {row}")
    return made


def described(thing: object) -> str:
    """A text that is the same in another process: a name, or the repr without addresses.

    >>> described("global"), described(described)
    ('global', 'described')
    """
    text = thing if isinstance(thing, str) else getattr(thing, "__name__", repr(thing))
    return re.sub(r" at 0x[0-9a-fA-F]+", "", str(text))
