"""The loop that walks a study: what is missing is done, what is there is left, what fails is kept.

Cells are handed out in the study's order as soon as all that they need is there, in tasks of about a second.
A process that dies is no error of its cells: they are tried again, one at a time where the executor cannot
tell whose fault it was, and a cell counts as failed when it was alone in three processes that died.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from regraft import data as datasets
from regraft.errors import FileError
from regraft.studies import own
from regraft.studies.catalogue import preset as preset_of
from regraft.studies.folder import Folder
from regraft.studies.run.executors import Executor, Finished, Task, choose
from regraft.studies.run.executors.base import Done
from regraft.studies.run.perform import Job
from regraft.studies.run.progress import Progress
from regraft.studies.store.database import FILE, Store
from regraft.studies.study import Cell, Result, Step, Study, in_order

TASK_SECONDS = 1.0
MOST_CELLS = 500  # of one task
DEATHS = 3  # of a process that did this cell alone, before the cell is given up


@dataclass(frozen=True)
class Ran:
    """What a run did.

    Attributes:
        total: cells of the study.
        before: cells that were there already.
        done: cells done now.
        failed: keys of the cells that failed, now or before.
        blocked: cells that need one that failed.
        seconds: how long it took.
    """

    total: int
    before: int
    done: int
    failed: tuple[str, ...]
    blocked: int
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every cell is there."""
        return self.before + self.done == self.total


def run(
    study: Study,
    preset: str = "small",
    folder: Folder | str | Path = "runs/studies",
    *,
    executor: str = "pool",
    workers: int | None = None,
    address: str | None = None,
    retry_failed: bool = False,
    data_dir: Path | None = None,
    tell: Callable[[Progress], object] = lambda progress: None,
) -> Ran:
    """Do all cells of a study that are not there yet.

    The same cells come out whatever the executor and the number of workers. A run that was stopped or killed
    at any moment is continued by the same call.

    Args:
        folder: of results; made where it does not exist. Studies in one folder share equal cells.
        executor: ``"pool"``, ``"inline"`` or ``"ray"``.
        workers: tasks at once; default all cores that may be used.
        address: of a Ray cluster.
        retry_failed: try cells again that failed before.
        data_dir: folder with data sets.
        tell: called when something ended, with the state of the run.

    >>> import tempfile
    >>> from regraft.studies import Cell, Outcome, Preset, Study, step
    >>> @step
    ... def square(work):
    ...     return Outcome(rows=[{"square": work.config["n"] ** 2}])
    >>> def cells(settings):
    ...     return [Cell(square, {"n": n}) for n in range(settings["most"])]
    >>> presets = {"smoke": Preset({"most": 3}, "1 s")}
    >>> study = Study("squares", "Squares", "nothing", "Squares.", cells, presets)
    >>> with tempfile.TemporaryDirectory() as path:
    ...     ran = run(study, "smoke", path, executor="inline")
    ...     again = run(study, "smoke", path, executor="inline")
    >>> ran.done, ran.complete, again.done, again.before
    (3, True, 0, 3)

    Raises:
        InputError: unknown preset or executor, or workers below 1.
        FileError: data missing, another run in this folder, or a folder that cannot be written.
        MissingDependency: Ray is not installed.
    """
    started = time.monotonic()
    chosen = preset_of(study, preset)
    cells = in_order(study.cells(chosen.settings))
    kept = folder if isinstance(folder, Folder) else Folder(folder, create=True)
    with kept.locked():
        kept.clean()
        store = Store(kept.path / FILE)
        try:
            walk = _Walk(kept, store, study.name, preset, cells, retry_failed, tell)
            if walk.wanted:
                _check_data(chosen.data, data_dir)
                doing = choose(executor, kept, data_dir, workers, address)
                walk.go(doing)
        finally:
            store.close()
            kept.clean()
    progress = walk.progress
    return Ran(
        len(cells), progress.before, progress.done, tuple(walk.failed), progress.blocked,
        time.monotonic() - started,
    )  # fmt: skip


def _check_data(names: Iterable[str], data_dir: Path | None) -> None:
    for name in names:
        datasets.load(name, data_dir=data_dir, per_class=1)


class _Walk:
    """The state of one run."""

    def __init__(
        self, folder: Folder, store: Store, study: str, preset: str, cells: list[Cell], retry: bool,
        tell: Callable[[Progress], object],
    ) -> None:  # fmt: skip
        self.folder, self.store, self.study, self.preset, self.tell = folder, store, study, preset, tell
        self.cells = {cell.key: cell for cell in cells}
        there = folder.done()
        known = folder.failed() & self.cells.keys()
        self.failed: list[str] = []
        self.progress = Progress(len(cells), before=sum(key in there for key in self.cells))
        for key in sorted(known):
            if retry or key in there:
                folder.forget_failure(key)
            else:
                self._fail(key)
        self.needed_by: dict[str, list[str]] = {}
        self.waits_for: dict[str, int] = {}
        self.blocked: set[str] = set()
        self.ready: dict[str, deque[str]] = {}
        self.suspects: deque[str] = deque()
        self.deaths: dict[str, int] = {}
        self.tasks: dict[int, Task] = {}
        self.number = 0
        self.fresh: list[Result] = []
        self.stored = time.monotonic()
        self.wanted = 0
        self._plan(there, set(self.failed))
        store.synchronise(folder, study, preset, [k for k in self.cells if k in there], self.failed)

    def _plan(self, there: set[str], failed: set[str]) -> None:
        for key, cell in self.cells.items():
            if key in there or key in failed:
                continue
            needs = {c.key for c in cell.needs}
            if needs & (failed | self.blocked):
                self.blocked.add(key)
                self.progress.blocked += 1
                continue
            missing = needs - there
            self.waits_for[key] = len(missing)
            for need in missing:
                self.needed_by.setdefault(need, []).append(key)
            if not missing:
                self._make_ready(key)
            self.progress.expect([cell])
            self.wanted += 1

    def _make_ready(self, key: str) -> None:
        self.ready.setdefault(self.cells[key].step.name, deque()).append(key)

    def go(self, executor: Executor) -> None:
        """Hand out cells and take results until nothing is left."""
        self.progress.workers = executor.workers
        self.tell(self.progress)
        try:
            while True:
                self._hand_out(executor)
                if not self.tasks:
                    break
                for finished in executor.wait(1.0):
                    self._take(finished, executor.isolates)
                self._keep()
            self._keep(at_once=True)
            executor.close()
        except BaseException:
            executor.close(now=True)
            self._keep(at_once=True)
            raise

    def _hand_out(self, executor: Executor) -> None:
        if self.suspects and not executor.isolates:
            # alone, so that the next death has one culprit
            if not self.tasks:
                self._submit(executor, [self.suspects.popleft()])
            return
        while len(self.tasks) < 2 * executor.workers:
            if self.suspects:
                self._submit(executor, [self.suspects.popleft()])
                continue
            waiting = next((q for q in self.ready.values() if q), None)
            if waiting is None:
                return
            count = self._chunk(self.cells[waiting[0]].step.name, len(waiting), executor.workers)
            self._submit(executor, [waiting.popleft() for _ in range(count)])

    def _chunk(self, step: str, waiting: int, workers: int) -> int:
        mean = self.progress.mean(step)
        if mean is None:
            return 1
        fair = -(-waiting // (2 * workers))
        return max(1, min(MOST_CELLS, fair, round(TASK_SECONDS / max(mean, 1e-9))))

    def _submit(self, executor: Executor, keys: list[str]) -> None:
        self.number += 1
        jobs = tuple(
            Job(key, dict(self.cells[key].config), tuple(c.key for c in self.cells[key].needs))
            for key in keys
        )
        task = Task(self.number, place(self.cells[keys[0]].step), jobs)
        self.tasks[task.number] = task
        executor.submit(task, self.cells[keys[0]].step)

    def _take(self, finished: Finished, isolates: bool) -> None:
        task = self.tasks.pop(finished.number)
        if finished.done is None:
            self._lost(task, alone=isolates or not self.tasks)
        else:
            told = {done.key for done in finished.done}
            for done in finished.done:
                self._end(done)
            for job in task.jobs:
                if job.key not in told:
                    self._make_ready(job.key)
        self.tell(self.progress)

    def _lost(self, task: Task, alone: bool) -> None:
        """The process died: what it had finished is there, the rest is tried again."""
        for job in task.jobs:
            if self.folder.cell(job.key).is_dir():
                self._end(Done(job.key, self.folder.read(job.key)))
                continue
            if alone and len(task.jobs) == 1:
                self.deaths[job.key] = self.deaths.get(job.key, 0) + 1
            if self.deaths.get(job.key, 0) >= DEATHS:
                said = (
                    f"the process that did this cell died {DEATHS} times: it was killed, crashed, or the "
                    "machine ran out of memory; try fewer workers"
                )
                self._end(Done(job.key, error=said))
            else:
                self.suspects.append(job.key)

    def _end(self, done: Done) -> None:
        cell = self.cells[done.key]
        if done.fatal:
            raise FileError(
                f"cannot keep results in '{self.folder.path}' ({done.error}): make room there and run the "
                f"same command again; the {self.progress.before + self.progress.done} finished cells are kept"
            )
        if done.result is None:
            record = {
                "key": done.key, "step": cell.step.name, "config": dict(cell.config), "error": done.error,
                "traceback": done.trace, "when": datetime.now(UTC).isoformat(timespec="seconds"),
            }  # fmt: skip
            self.folder.record_failure(done.key, record)
            self.store.add_failure(self.study, self.preset, record)
            self.progress.drop(cell.step.name)
            self._fail(done.key)
            self._block(done.key)
            return
        self.fresh.append(done.result)
        self.progress.note(cell.step.name, done.result.seconds)
        for key in self.needed_by.pop(done.key, ()):
            self.waits_for[key] -= 1
            if self.waits_for[key] == 0 and key not in self.blocked:
                self._make_ready(key)

    def _fail(self, key: str) -> None:
        self.failed.append(key)
        self.progress.failed += 1

    def _block(self, failed: str) -> None:
        path = [failed]
        while path:
            for key in self.needed_by.pop(path.pop(), ()):
                if key not in self.blocked:
                    self.blocked.add(key)
                    self.progress.blocked += 1
                    self.progress.drop(self.cells[key].step.name)
                    path.append(key)

    def _keep(self, at_once: bool = False) -> None:
        """Copy what is new into the database, at most once a second."""
        if self.fresh and (at_once or time.monotonic() - self.stored >= 1.0):
            self.store.add(self.study, self.preset, self.fresh)
            self.fresh, self.stored = [], time.monotonic()


def place(step: Step) -> tuple[str, str, str | None]:
    """Where other processes find a step: module, name, and its file where it is a user's own."""
    return (*step.place, own.source(step))
