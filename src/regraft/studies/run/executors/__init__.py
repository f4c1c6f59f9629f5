"""Where cells are done: in this process, in a pool of processes, or on a Ray cluster."""

from regraft.studies.run.executors.base import Executor, Finished, Task
from regraft.studies.run.executors.choose import EXECUTORS, choose

__all__ = ["EXECUTORS", "Executor", "Finished", "Task", "choose"]
