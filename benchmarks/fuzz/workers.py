"""Worker processes: each tries batches of inputs; one that dies or hangs is noticed, and so is the input."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from .attempt import Outcome, Peak, alarmed, attempt, limit_memory
from .target import Target, source

BATCH = 250
MEMORY = 1 << 30
"""Addresses that a worker may take beyond what it starts with."""
SILENCE = 20.0
"""Seconds of processor time at one input after which a worker is stuck where no alarm reaches it."""
DEADLOCK = 900.0
"""Seconds on the clock after which it is."""
KEPT = 10
"""Findings of one place of a target that are kept with their traceback."""


@dataclass(frozen=True)
class Batch:
    """Inputs ``number * BATCH`` to ``(number + 1) * BATCH`` of a target, less those that killed a worker."""

    target: str
    number: int
    stop: int
    without: tuple[int, ...] = ()

    def inputs(self) -> list[int]:
        """Their numbers."""
        numbers = range(self.number * BATCH, min((self.number + 1) * BATCH, self.stop))
        return [n for n in numbers if n not in self.without]


@dataclass
class Report:
    """What came of a batch; ``slowest`` and ``largest`` are (figure, number of the input)."""

    batch: Batch
    counts: dict[str, int] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    slowest: tuple[float, int] = (0.0, -1)
    largest: tuple[int, int] = (0, -1)
    kept: int = 0

    def note(self, number: int, outcome: Outcome) -> None:
        """One input more."""
        self.counts[outcome.status] = self.counts.get(outcome.status, 0) + 1
        self.slowest = max(self.slowest, (outcome.seconds, number))
        self.largest = max(self.largest, (outcome.memory, number))
        if not outcome.good:
            self.findings.append(finding(self.batch.target, number, outcome))


def finding(target: str, number: int, outcome: Outcome) -> dict[str, Any]:
    """A finding as plain data."""
    return {
        "target": target, "input": number, "kind": outcome.status, "where": outcome.where,
        "detail": outcome.detail, "seconds": round(outcome.seconds, 3), "memory": outcome.memory,
    }  # fmt: skip


def quiet() -> None:
    """Settings of a process that fuzzes: torch on one thread, no warnings on the screen."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _try_batch(batch: Batch, target: Target, seed: int, seconds: float, folder: Path, at: Any) -> Report:
    report = Report(batch)
    before, peak, start = _resident(), Peak(), time.process_time()
    for number in batch.inputs():
        at.value = number
        case = target.make(source(seed, target.name, number))
        report.note(number, attempt(target, case, folder, peak, seconds))
    report.seconds, report.kept = time.process_time() - start, _resident() - before
    return report


def _work(
    pipe: Connection, theirs: Connection, at: Any, targets: Mapping[str, Target], seed: int, seconds: float
) -> None:
    theirs.close()  # so that the pipe ends with the parent, and this process with it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    quiet()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries that print to the screen
    limit_memory(MEMORY)
    place = tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    try:
        with alarmed():
            while (batch := pipe.recv()) is not None:
                folder = Path(place, batch.target)
                folder.mkdir(exist_ok=True)
                pipe.send(_try_batch(batch, targets[batch.target], seed, seconds, folder, at))
    except EOFError:
        pass
    except BaseException:
        pipe.send(traceback.format_exc())
    finally:
        shutil.rmtree(place, ignore_errors=True)


class _Worker:
    """One process, and what it is at."""

    def __init__(self, targets: Mapping[str, Target], seed: int, seconds: float) -> None:
        context = multiprocessing.get_context("fork")
        self.at: Any = context.Value(ctypes.c_longlong, -1, lock=False)
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_work, args=(theirs, self.pipe, self.at, targets, seed, seconds), daemon=True
        )
        self.process.start()
        theirs.close()
        self.batch: Batch | None = None
        self.sign, self.used, self.last = time.monotonic(), 0.0, -1

    def start(self, batch: Batch) -> None:
        self.batch, self.sign, self.used, self.last = batch, time.monotonic(), self._time(), -1
        self.pipe.send(batch)

    def stuck(self) -> bool:
        """Whether it has been at one input for too long."""
        if self.at.value != self.last:
            self.last, self.sign, self.used = self.at.value, time.monotonic(), self._time()
        return self._time() - self.used > SILENCE or time.monotonic() - self.sign > DEADLOCK

    def _time(self) -> float:
        """Processor time of the process so far."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.pipe.close()


def run(
    batches: list[Batch], targets: Mapping[str, Target], *, seed: int, jobs: int, seconds: float
) -> Iterator[Report]:
    """Reports of the batches as they come; a worker that dies is replaced, its batch done over."""
    todo = deque(batches)
    workers = [_Worker(targets, seed, seconds) for _ in range(max(1, min(jobs, len(todo))))]
    try:
        for worker in workers:
            if todo:
                worker.start(todo.popleft())
        while any(w.batch is not None for w in workers):
            ready = wait([w.pipe for w in workers if w.batch is not None], timeout=1.0)
            for place, worker in enumerate(workers):
                if worker.batch is None:
                    continue
                report = _hear(worker, ready=worker.pipe in ready)
                if report is None:
                    continue
                if not worker.process.is_alive() or report.batch is not worker.batch:
                    todo.appendleft(Batch(worker.batch.target, worker.batch.number, worker.batch.stop,
                                          (*worker.batch.without, worker.at.value)))  # fmt: skip
                    worker.end()
                    workers[place] = worker = _Worker(targets, seed, seconds)
                yield report
                worker.batch = None
                if todo:
                    worker.start(todo.popleft())
    finally:
        for worker in workers:
            worker.end()


def _hear(worker: _Worker, *, ready: bool) -> Report | None:
    """A batch's report; or one of the input at which the worker died; None if there is no news."""
    assert worker.batch is not None
    if ready:
        try:
            heard = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            return _died(worker, f"exit code {worker.process.exitcode}", "death")
        if isinstance(heard, str):
            raise RuntimeError(f"input {worker.at.value} of {worker.batch.target} cannot be made:\n{heard}")
        report: Report = heard
        worker.batch = report.batch
        return report
    if worker.stuck():
        worker.process.kill()
        worker.process.join()
        return _died(worker, "no sign for long", "hang")
    return None


def _died(worker: _Worker, what: str, kind: str) -> Report:
    assert worker.batch is not None
    number = worker.at.value
    without = (*worker.batch.without, number)
    report = Report(Batch(worker.batch.target, worker.batch.number, worker.batch.stop, without))
    report.note(number, Outcome(kind, what, f"the process ended: {what}"))
    return report
