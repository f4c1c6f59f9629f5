"""An executor by its name."""

from __future__ import annotations

import os
from pathlib import Path

from regraft.errors import InputError, unknown
from regraft.studies.folder import Folder
from regraft.studies.run.executors.base import Executor
from regraft.studies.run.executors.inline import Inline
from regraft.studies.run.executors.pool import Pool

EXECUTORS = ("pool", "inline", "ray")


def choose(
    name: str, folder: Folder, data_dir: Path | None, workers: int | None = None, address: str | None = None
) -> Executor:
    """An executor that keeps its cells in ``folder``.

    Args:
        name: ``"pool"`` (processes of this machine), ``"inline"`` (this process) or ``"ray"``.
        workers: tasks at once; default: the cores that this process may use, with Ray the cluster's.
        address: of a Ray cluster; ``"auto"`` for one that runs on this machine, None to begin one.

    Raises:
        InputError: unknown name, workers below 1, an address for another executor than Ray, or a cluster
            that cannot be reached.
        MissingDependency: Ray is not installed.
    """
    if name not in EXECUTORS:
        raise unknown("executor", name, EXECUTORS)
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}, but must be 1 or more")
    if address is not None and name != "ray":
        raise InputError(f"the address {address!r} is for the executor 'ray', not for {name!r}: leave it out")
    if name == "ray":
        from regraft.studies.run.executors.cluster import Cluster

        return Cluster(folder, data_dir, workers, address)
    if name == "inline":
        if workers not in (None, 1):
            raise InputError(f"the executor 'inline' has one worker, not {workers}: use the executor 'pool'")
        return Inline(folder, data_dir)
    return Pool(folder, data_dir, workers or len(os.sched_getaffinity(0)))
