"""A pool of processes on this machine, one thread each.

A process that is killed breaks the whole pool of ``concurrent.futures``: all tasks under way are told as
lost, and a new pool is begun. The processes end by themselves when the one that began them is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from regraft.studies.folder import Folder
from regraft.studies.run.executors.base import Finished, Task, do_task
from regraft.studies.study import Step


class Pool:
    """Processes of this machine.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as path:
    ...     pool = Pool(Folder(path, create=True), None, 2)
    ...     pool.wait(0.0)
    ...     pool.close()
    []
    """

    isolates = False

    def __init__(self, folder: Folder, data_dir: Path | None, workers: int) -> None:
        """Processes are begun with the first task."""
        self.workers = workers
        self._folder, self._data_dir = folder, data_dir
        self._pool: ProcessPoolExecutor | None = None
        self._running: dict[Future[Finished], int] = {}
        self._lost: list[Finished] = []

    def submit(self, task: Task, step: Step) -> None:
        """Hand a task to the next free process."""
        if self._pool is None:
            # not fork: threads of this process do not survive it. The server forks from a process that has
            # imported everything and begun nothing, so a new pool is there at once
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["regraft.studies.run.executors.base"])
            self._pool = ProcessPoolExecutor(self.workers, context, _begin)
        try:
            future = self._pool.submit(do_task, task, self._folder, self._data_dir)
        except BrokenProcessPool:
            self._lost.append(Finished(task.number, None))
            self._renew()
            return
        self._running[future] = task.number

    def wait(self, seconds: float) -> list[Finished]:
        """Tasks that ended."""
        lost, self._lost = self._lost, []
        if lost or not self._running:
            return lost
        ended, _ = wait(self._running, seconds, FIRST_COMPLETED)
        found, broken = [], False
        for future in ended:
            number = self._running.pop(future)
            try:
                found.append(future.result())
            except BrokenProcessPool:
                broken = True
                found.append(Finished(number, None))
        if broken:
            found += [Finished(number, None) for number in self._running.values()]
            self._running.clear()
            self._renew()
        return found

    def _renew(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def close(self, *, now: bool = False) -> None:
        """End all processes; without ``now`` after what they are at."""
        if self._pool is None:
            return
        # a copy: the pool forgets its processes while it shuts down
        processes = list((self._pool._processes or {}).values())
        if now:
            for process in processes:
                process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None
        self._running.clear()


def _begin() -> None:
    """What each process does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    # a process that waits for work would wait for ever if the one that gives it was killed
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
