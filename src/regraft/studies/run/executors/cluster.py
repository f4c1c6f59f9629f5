"""A Ray cluster: tasks go to its workers, needed cells with them; finished cells come back as bytes.

Nothing is taken for granted about the workers' disks, so a cluster needs no shared folder: a worker unpacks
what a cell needs into a folder of its own, and the files of a finished cell return to the process that began
the run, which alone writes into the folder of results.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from regraft.errors import FileError, InputError, MissingDependency
from regraft.studies.folder import Folder
from regraft.studies.run.executors.base import Done, Finished, Task, do_task, failure
from regraft.studies.study import Step

Packed = dict[str, bytes]
"""The files of one cell's directory, by name."""


class Cluster:
    """Workers of a Ray cluster, one core each."""

    isolates = True

    def __init__(
        self, folder: Folder, data_dir: Path | None, workers: int | None = None, address: str | None = None
    ) -> None:
        """Reach the cluster, or begin one on this machine.

        Args:
            workers: tasks at once; default the cluster's cores.
            address: ``"auto"``, ``"ray://host:port"`` or ``"host:port"``; None to begin a cluster here.

        Raises:
            MissingDependency: Ray is not installed.
            InputError: the cluster cannot be reached.
        """
        try:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            import ray
        except ImportError as error:
            raise MissingDependency("ray", "ray", "the executor 'ray'") from error
        self._ray: Any = ray
        self._owned = not ray.is_initialized()
        if self._owned:
            _connect(ray, address, workers)
        self.workers = workers or max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        self._folder, self._data_dir = folder, data_dir
        self._remote = ray.remote(num_cpus=1, max_retries=0)(_on_worker)
        self._running: dict[Any, int] = {}
        self._shipped: dict[str, Any] = {}

    def submit(self, task: Task, step: Step) -> None:
        """Send a task with the cells that it needs."""
        needed = dict.fromkeys(key for job in task.jobs for key in job.needs)
        own = _own_file(task)
        reference = self._remote.remote(task, own, self._data_dir, list(needed), *map(self._ship, needed))
        self._running[reference] = task.number

    def _ship(self, key: str) -> Any:
        """A needed cell in the cluster's memory, sent once however many tasks take it."""
        if key not in self._shipped:
            self._shipped[key] = self._ray.put(pack(self._folder.cell(key)))
        return self._shipped[key]

    def wait(self, seconds: float) -> list[Finished]:
        """Tasks that ended; their cells are in the folder."""
        if not self._running:
            return []
        ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        return [self._take(reference) for reference in ended]

    def _take(self, reference: Any) -> Finished:
        number = self._running.pop(reference)
        try:
            done, packed = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError:
            raise  # do_task lets nothing out: a fault of this executor
        except self._ray.exceptions.RayError:
            return Finished(number, None)
        return Finished(number, tuple(self._keep(d, packed) for d in done))

    def _keep(self, done: Done, packed: dict[str, Packed]) -> Done:
        if done.result is None:
            return done
        try:
            part = self._folder.new_part()
            unpack(packed[done.key], part)
            self._folder.keep(done.key, part)
        except OSError as error:
            return failure(done.key, error)
        return replace(done, result=replace(done.result, folder=self._folder.cell(done.key)))

    def close(self, *, now: bool = False) -> None:
        """Let go of the cluster; tasks under way are cancelled."""
        for reference in self._running:
            self._ray.cancel(reference, force=now)
        self._running.clear()
        self._shipped.clear()
        if self._owned:
            self._ray.shutdown()


def _connect(ray: Any, address: str | None, workers: int | None) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if address is None:
        options |= {"num_cpus": workers or len(os.sched_getaffinity(0)), "include_dashboard": False}
    else:
        options["address"] = address
    try:
        _knock(address)
        ray.init(**options)
    except (OSError, ValueError, RuntimeError) as error:
        where = (
            "a Ray cluster on this machine"
            if address in (None, "auto")
            else f"the Ray cluster at '{address}'"
        )
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{where} cannot be reached ({reason}): "
            "start one with `ray start --head`, give its address, or leave --address out to begin one here"
        ) from error


def _knock(address: str | None) -> None:
    # where nobody listens, ray.init tries for a minute and then ends the whole process
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=5.0).close()


def _own_file(task: Task) -> tuple[str, bytes] | None:
    """Name and text of the user's own file that holds the step."""
    path = task.place[2]
    if path is None:
        return None
    try:
        return Path(path).name, Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"cannot read the study's file '{path}': {error.strerror}") from error


def _on_worker(
    task: Task, own: tuple[str, bytes] | None, data_dir: Path | None, keys: Sequence[str], *needed: Packed
) -> tuple[tuple[Done, ...], dict[str, Packed]]:
    """What a worker does: unpack, do the task, pack."""
    place = tempfile.mkdtemp(prefix="regraft-")
    try:
        folder = Folder(Path(place) / "results", create=True)
        for key, packed in zip(keys, needed, strict=True):
            part = folder.new_part()
            unpack(packed, part)
            folder.keep(key, part)
        if own is not None and not Path(str(task.place[2])).exists():
            copy = Path(place) / own[0]
            copy.write_bytes(own[1])
            task = replace(task, place=(*task.place[:2], str(copy)))
        finished = do_task(task, folder, data_dir)
        done = finished.done or ()
        return done, {d.key: pack(folder.cell(d.key)) for d in done if d.result is not None}
    finally:
        shutil.rmtree(place, ignore_errors=True)


def pack(place: Path) -> Packed:
    """The files of a cell's directory.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "a").write_bytes(b"x")
    ...     pack(Path(folder))
    {'a': b'x'}
    """
    return {file.name: file.read_bytes() for file in sorted(place.iterdir()) if file.is_file()}


def unpack(packed: Packed, into: Path) -> None:
    """Write files into a directory that is there."""
    for name, content in packed.items():
        (into / name).write_bytes(content)
