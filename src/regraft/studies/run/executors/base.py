"""The one interface of executors, and what any process does with a task."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from regraft import kernels
from regraft.studies.folder import Folder
from regraft.studies.own import resolve_step
from regraft.studies.run.perform import Job, perform
from regraft.studies.study import Result, Step

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
"""Errors of the results folder that would meet every cell: the study ends instead."""


@dataclass(frozen=True)
class Task:
    """Cells of one step that one process does in a row.

    Attributes:
        number: tells tasks apart.
        place: module and name of the step, and the file that holds it where it is a user's own.
    """

    number: int
    place: tuple[str, str, str | None]
    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class Done:
    """The end of one cell: its result, or its error.

    Attributes:
        fatal: the error is one of the results folder, which every cell would meet.
    """

    key: str
    result: Result | None = None
    error: str = ""
    trace: str = ""
    fatal: bool = False


@dataclass(frozen=True)
class Finished:
    """The end of a task; ``done`` is None where its process died before it could tell."""

    number: int
    done: tuple[Done, ...] | None


class Executor(Protocol):
    """Something that does tasks.

    Attributes:
        workers: tasks that it does at once.
        isolates: whether a process that dies takes no other task with it.
    """

    workers: int
    isolates: bool

    def submit(self, task: Task, step: Step) -> None:
        """Take a task; ``wait`` tells of its end. Another process finds the step by ``task.place``."""

    def wait(self, seconds: float) -> list[Finished]:
        """Tasks that ended; returns when there is one, or after that time."""

    def close(self, *, now: bool = False) -> None:
        """Let go of all processes; ``now`` ends them in the middle of their work."""


def do_task(task: Task, folder: Folder, data_dir: Path | None, step: Step | None = None) -> Finished:
    """Do the cells of a task one after another and keep each as soon as it is done."""
    done = []
    try:
        step = step or resolve_step(*task.place)
    except Exception as error:
        done = [failure(job.key, error) for job in task.jobs]
        return Finished(task.number, tuple(done))
    for job in task.jobs:
        try:
            inputs = [read_input(folder, key) for key in job.needs]
            part = folder.new_part()
            with alone(job.key):
                perform(step, job, inputs, part, data_dir)
            folder.keep(job.key, part)
            done.append(Done(job.key, folder.read(job.key)))
        except Exception as error:
            done.append(failure(job.key, error))
            if done[-1].fatal:
                break
    return Finished(task.number, tuple(done))


def read_input(folder: Folder, key: str) -> Result:
    """A needed cell's result.

    Raises:
        FileNotFoundError: it is not there any more.
    """
    found = folder.read(key)
    if found is None:
        raise FileNotFoundError(f"the needed cell {key} is not in '{folder.path}' any more")
    return found


def failure(key: str, error: BaseException) -> Done:
    """What is kept of a cell's exception."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    text = "".join(traceback.format_exception(error))
    return Done(key, error=f"{name}: {error}", trace=text, fatal=_no_room(error))


def _no_room(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def alone(key: str) -> Iterator[None]:
    """One thread, and a global random stream that depends on the cell alone, so that no neighbour matters."""
    threads, own = torch.get_num_threads(), kernels.get_threads()
    torch.set_num_threads(1)
    kernels.set_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(key[:15], 16))
            yield
    finally:
        torch.set_num_threads(threads)
        kernels.set_threads(own)
