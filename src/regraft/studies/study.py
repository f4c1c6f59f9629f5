"""What a study is: cells of work, the steps that do them, published figures, and how results are shown.

A study is a value. Its cells form a graph: a cell names a step, the step's configuration, and the cells whose
results it needs. A cell's key is a hash of all that decides its result, so equal work is done once, whichever
study asks for it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from torch import nn

from regraft import data as datasets
from regraft.checkpoint import load
from regraft.data import Data
from regraft.errors import InputError
from regraft.report import Results
from regraft.studies.claims import Claim

Row = dict[str, Any]
"""One line of a study's table: names to text, finite numbers, truth values or None."""

NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
OWN = "regraft_own_study"
"""Before the names of the modules that ``studies.own`` makes of files."""


@dataclass(frozen=True)
class Outcome:
    """What a step made of one cell.

    Attributes:
        rows: lines of the study's table; the cell's configuration is joined to each when it is read.
        epochs: metrics over epochs, one dict an epoch with an ``"epoch"``; a ``"run"`` tells several
            trainings of one cell apart.
        models: networks to keep beside, by name; written as safetensors.
    """

    rows: Sequence[Row] = ()
    epochs: Sequence[Row] = ()
    models: Mapping[str, nn.Module] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """A finished cell, as a later step or a report sees it.

    Attributes:
        key: the cell's.
        step: name of the step that made it.
        config: the cell's.
        rows, epochs: as the step gave them.
        folder: where its files lie.
        seconds: the time that the step took.
        started: when, in UTC, as ISO 8601 has it.
    """

    key: str
    step: str
    config: Mapping[str, Any]
    rows: Sequence[Row]
    epochs: Sequence[Row]
    folder: Path
    seconds: float = 0.0
    started: str = ""

    def model(self, name: str = "model") -> nn.Module:
        """A network that the step kept.

        Raises:
            FileError: there is none of that name, or the file is corrupt.
        """
        return load(self.folder / f"{name}.safetensors")


@dataclass(frozen=True)
class Work:
    """What a step is given: a configuration, results it needs, and access to data.

    Attributes:
        config: the cell's.
        inputs: results of the cells that this one needs, in their order.
        data_dir: folder with data sets; None for the usual places.
    """

    config: Mapping[str, Any]
    inputs: Sequence[Result] = ()
    data_dir: Path | None = None

    def data(self, name: str, **options: Any) -> Data:
        """``regraft.data.load``, once a process for the same options (give tuples rather than lists).

        Raises:
            FileError: the files are missing or corrupt.
            InputError: an option that cannot be used.
        """
        return _load(name, self.data_dir, **options)


@functools.lru_cache(maxsize=4)
def _load(name: str, data_dir: Path | None, **options: Any) -> Data:
    return datasets.load(name, data_dir=data_dir, **options)


@dataclass(frozen=True)
class Step:
    """A function from ``Work`` to ``Outcome``; ``version`` is raised when its results change.

    It must stand at the top level of a module, so that other processes find it by name, and draw all its
    random numbers from seeds in the configuration.
    """

    run: Callable[[Work], Outcome]
    version: int = 1

    @property
    def name(self) -> str:
        """Module and name of the function, without the package's own prefix.

        In a file of the user's own the file's stem stands for the module, wherever the file lies and however
        it is run, so that moving it keeps its results.
        """
        module = self.run.__module__
        if module.startswith(f"{OWN}."):
            module = "own." + module.removeprefix(f"{OWN}.").rpartition("_")[0]
        elif module == "__main__" and (file := getattr(sys.modules[module], "__file__", None)):
            module = "own." + re.sub(r"\W", "_", Path(file).stem, flags=re.ASCII)
        return f"{module}.{self.run.__qualname__}".removeprefix("regraft.studies.")

    @property
    def place(self) -> tuple[str, str]:
        """Module and attribute under which other processes find the step."""
        return self.run.__module__, self.run.__qualname__


@overload
def step(function: Callable[[Work], Outcome]) -> Step: ...
@overload
def step(*, version: int = 1) -> Callable[[Callable[[Work], Outcome]], Step]: ...
def step(
    function: Callable[[Work], Outcome] | None = None, *, version: int = 1
) -> Step | Callable[[Callable[[Work], Outcome]], Step]:
    """Decorator that makes a step of a function.

    >>> @step
    ... def double(work):
    ...     return Outcome(rows=[{"value": 2 * work.config["value"]}])
    >>> double.run(Work({"value": 4})).rows
    [{'value': 8}]
    """
    if function is None:
        return lambda f: Step(f, version)
    return Step(function, version)


@dataclass(frozen=True, eq=False)
class Cell:
    """One piece of work.

    Attributes:
        step: what does it.
        config: plain values (text, finite numbers, truth values, None, lists and dicts of them).
        needs: cells whose results it takes.
    """

    step: Step
    config: Mapping[str, Any]
    needs: tuple[Cell, ...] = ()

    @functools.cached_property
    def key(self) -> str:
        """32 hexadecimal digits that stand for step, version, configuration and all needed cells.

        >>> @step
        ... def nothing(work):
        ...     return Outcome()
        >>> a, b = Cell(nothing, {"x": 1, "y": 2}), Cell(nothing, {"y": 2, "x": 1})
        >>> a.key == b.key, a.key == Cell(nothing, {"x": 1, "y": 3}).key, len(a.key)
        (True, False, 32)

        Raises:
            InputError: the configuration holds something that is no plain value.
        """
        whole = {
            "step": self.step.name,
            "version": self.step.version,
            "config": self.config,
            "needs": [c.key for c in self.needs],
        }
        return hashlib.sha256(canonical(whole).encode()).hexdigest()[:32]


def canonical(value: Any) -> str:
    """JSON text that is the same for equal plain values.

    >>> canonical({"b": [1, 2.0], "a": None})
    '{"a":null,"b":[1,2.0]}'

    Raises:
        InputError: something that is no plain value, or a number that is not finite.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"a study's configuration holds something that is no plain value ({error}): use text, finite "
            "numbers, truth values, None, and lists and dicts of them"
        ) from error


@dataclass(frozen=True)
class Preset:
    """One scale of a study.

    Attributes:
        settings: what ``Study.cells`` is given.
        cost: what to expect on two cores, measured where it says so: ``"25 min"``.
        data: names of the data sets it needs.
        comparable: whether its numbers can be held against the published ones; orderings always are.
    """

    settings: Mapping[str, Any]
    cost: str
    data: tuple[str, ...] = ()
    comparable: bool = False


@dataclass(frozen=True, eq=False)
class Rows:
    """The table of one study at one preset: every row of every finished cell, joined with its configuration.

    Attributes:
        rows: with the columns of the configuration, of the row, and ``"cell"`` and ``"step"``.
        results: the finished cells, in the order in which the study names them.
        preset: its name.
        missing: cells that are not done.
    """

    rows: Sequence[Row]
    results: Sequence[Result]
    preset: str
    missing: int = 0

    def where(self, **wanted: Any) -> Rows:
        """The rows that have these values; a tuple, list or set means any of its members.

        >>> table = Rows([{"a": 1, "b": 2}, {"a": 2, "b": 3}], [], "smoke")
        >>> table.where(a=(1, 5)).rows
        [{'a': 1, 'b': 2}]
        """

        rows = self.rows
        for name, v in wanted.items():
            # a filter at a time: claims look through tens of thousands of rows again and again
            if isinstance(v, tuple | list | set):
                rows = [r for r in rows if r.get(name) in v]
            else:
                rows = [r for r in rows if r.get(name) == v]
        return Rows(rows, self.results, self.preset, self.missing)

    def column(self, name: str) -> list[Any]:
        """The values of a column, without rows that lack it."""
        return [r[name] for r in self.rows if r.get(name) is not None]

    def by(self, *names: str) -> dict[tuple[Any, ...], Rows]:
        """The rows of each combination of values of these columns, in the order of their appearance."""
        found: dict[tuple[Any, ...], list[Row]] = {}
        for row in self.rows:
            found.setdefault(tuple(row.get(n) for n in names), []).append(row)
        return {k: Rows(v, self.results, self.preset, self.missing) for k, v in found.items()}

    def mean(self, name: str) -> float | None:
        """The mean of a column; None where it is empty."""
        found = self.column(name)
        return math.fsum(found) / len(found) if found else None

    def __len__(self) -> int:
        return len(self.rows)


def _no_parts(rows: Rows) -> Results:
    return {}


@dataclass(frozen=True, eq=False)
class Study:
    """A study: what it reproduces, its cells at each preset, what was published, and how it is shown.

    Attributes:
        name: lower case with hyphens.
        title: a line.
        reproduces: thesis, tables and figures: ``"thesis 1, figures 11-16, tables 2, 4-6"``.
        about: two or three sentences on the question and the setting.
        cells: settings of a preset to the cells; all needed cells are found from them.
        presets: by name; the usual ones are smoke, small and paper.
        claims: what was published, and how to see whether it holds.
        report: tables and figures of the measured rows.
        differs: what differs from the original, and why; a sentence each.
    """

    name: str
    title: str
    reproduces: str
    about: str
    cells: Callable[[Mapping[str, Any]], Iterable[Cell]]
    presets: Mapping[str, Preset]
    claims: Sequence[Claim] = ()
    report: Callable[[Rows], Results] = _no_parts
    differs: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise InputError(
                f"a study's name is {self.name!r}, but must be lower case letters, digits and hyphens"
            )
        if not self.presets:
            raise InputError(f"the study '{self.name}' has no preset: give it at least one")


def in_order(cells: Iterable[Cell]) -> list[Cell]:
    """The cells and all that they need, each once, needed ones before those that need them.

    Raises:
        InputError: a configuration that is not plain, or a cell that needs itself.
    """
    found: dict[str, Cell] = {}
    for cell in cells:
        path: list[tuple[Cell, bool]] = [(cell, False)]
        while path:
            at, ready = path.pop()
            if at.key in found:
                continue
            if ready or not at.needs:
                found[at.key] = at
                continue
            path.append((at, True))
            path += [(need, False) for need in reversed(at.needs)]
    return list(found.values())
