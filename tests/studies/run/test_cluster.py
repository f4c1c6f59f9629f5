"""The Ray executor: the same cells as in one process, a worker that dies, clusters that are not there."""

import dataclasses
import os
import socket
import sys

import pytest

from regraft.errors import InputError, MissingDependency
from regraft.studies import Preset
from regraft.studies.folder import Folder
from regraft.studies.run import run
from regraft.studies.tables import table


@pytest.fixture(scope="module")
def cluster():
    """Two workers on this machine, begun once for all tests."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'regraft[ray]'")
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    patch.setenv("RAY_worker_niceness", "0")  # the usual 15 starves on a machine that runs other tests
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()
    patch.undo()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")
def test_a_thousand_cells_with_a_worker_that_is_killed(cluster, dice, tmp_path, contents):
    mark = tmp_path / "died"
    study = dataclasses.replace(dice, presets={"smoke": Preset({"most": 1000, "dies": str(mark)}, "1 s")})
    ran = run(study, "smoke", tmp_path / "ray", executor="ray", workers=2)
    assert mark.exists()
    assert (ran.total, ran.done, ran.failed, ran.blocked) == (1200, 1200, (), 0)
    rows = table(study, "smoke", Folder(tmp_path / "ray")).rows
    assert len(rows) == len({r["cell"] for r in rows}) == 1200
    again = run(study, "smoke", tmp_path / "inline", executor="inline")
    assert again.complete
    assert contents(study, "smoke", tmp_path / "ray") == contents(study, "smoke", tmp_path / "inline")
    assert cluster.is_initialized()  # a cluster that the caller began is the caller's to end


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")
def test_failures_come_back_with_their_error(cluster, dice, tmp_path):
    ran = run(dice, "fails", tmp_path, executor="ray", workers=2)
    assert (ran.done, len(ran.failed), ran.blocked) == (24, 1, 1)
    assert Folder(tmp_path).failure(ran.failed[0])["error"] == "ValueError: the dice fell from the table"
    deadly = run(dice, "deadly", tmp_path, executor="ray", workers=2)
    assert "died 3 times" in Folder(tmp_path).failure(deadly.failed[0])["error"]


def test_without_ray_the_extra_is_named(dice, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependency, match=r"pip install 'regraft\[ray\]'"):
        run(dice, "smoke", tmp_path, executor="ray")


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}"])
def test_a_cluster_that_is_not_there_is_named(dice, tmp_path, monkeypatch, address):
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'regraft[ray]'")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # nobody listens there
        where = address.format(port=free.getsockname()[1])
        with pytest.raises(InputError, match=rf"cluster at '{where}' cannot be reached .*ray start --head"):
            run(dice, "smoke", tmp_path, executor="ray", address=where)
    assert os.listdir(tmp_path / "cells") == []
