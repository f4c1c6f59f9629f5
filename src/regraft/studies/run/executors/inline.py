"""Tasks done in this process, one after another."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from regraft.studies.folder import Folder
from regraft.studies.run.executors.base import Finished, Task, do_task
from regraft.studies.study import Step


class Inline:
    """Does each task when it is waited for; nothing runs beside it."""

    workers = 1
    isolates = True

    def __init__(self, folder: Folder, data_dir: Path | None) -> None:
        """Tasks keep their cells in ``folder``."""
        self._folder, self._data_dir = folder, data_dir
        self._tasks: deque[tuple[Task, Step]] = deque()

    def submit(self, task: Task, step: Step) -> None:
        """Take a task."""
        self._tasks.append((task, step))

    def wait(self, seconds: float) -> list[Finished]:
        """Do the first task."""
        if not self._tasks:
            return []
        task, step = self._tasks.popleft()
        return [do_task(task, self._folder, self._data_dir, step)]

    def close(self, *, now: bool = False) -> None:
        """Forget tasks that were not begun."""
        self._tasks.clear()
