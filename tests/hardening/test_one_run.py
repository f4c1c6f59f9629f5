"""Several runs at once: in one folder the second says who holds it, into one file both finish."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.hardening.conftest import DICE, make_net
from tests.hardening.test_disks import DEMO, FEDERATE, PRUNE, SHORT, refused

import regraft
from regraft import data
from regraft.cli import main
from regraft.container import only_one
from regraft.errors import FileError
from regraft.federated import IID, Federation, Local, SparseMerge, federate, partitioned
from regraft.studies.run import Folder
from regraft.train import Checkpoint, fit

# commands that keep several files in a folder, and the name of its lock
FOLDERS: dict[str, tuple[tuple[object, ...], str]] = {
    "train": (("train", *SHORT, "--out", "{ok}", "--checkpoint", "{folder}"), ".lock"),
    "prune": (
        (*PRUNE, "--schedule", "iterative", "--rounds", 1, "--out", "{ok}", "--checkpoint", "{folder}"),
        ".lock",
    ),
    "tournament": (("tournament", "{n0}", "{n1}", "--out", "{ok}", "--folder", "{folder}"), ".lock"),
    "federate": ((*FEDERATE, "--out", "{ok}", "--state", "{folder}"), ".lock"),
    "demo": ((*DEMO, "--out", "{folder}"), ".lock"),
    "study run": (("study", "run", DICE, "--preset", "smoke", "--folder", "{folder}",
                   "--executor", "inline"), "lock"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_second_run_in_the_folder_says_who_holds_it(
    kind: str, tmp_path: Path, networks: list[Path], capsys: pytest.CaptureFixture[str], call: Any
) -> None:
    args, lock = FOLDERS[kind]
    folder = tmp_path / "kept"
    words = {
        "{ok}": tmp_path / "ok.safetensors",
        "{folder}": folder,
        "{n0}": networks[0],
        "{n1}": networks[1],
    }
    filled = [str(words.get(str(a), a)) for a in args]
    if kind == "study run":
        Folder(folder, create=True)
    folder.mkdir(exist_ok=True)
    with only_one(folder, lock):
        before = sorted(folder.rglob("*"))
        said = refused(capsys, filled)
        assert f"another run writes into '{folder}' (process {os.getpid()} on " in said
        assert [p for p in sorted(folder.rglob("*")) if p.name != "options.json"] == before
    assert call(*filled) == 0
    assert not (folder / lock).exists()


def test_in_python_too(tmp_path: Path) -> None:
    digits = data.load("digits", per_class=4, test_per_class=2)
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    parts = partitioned(digits.train, IID(), 2, torch.Generator().manual_seed(0))
    rounds = Federation(SparseMerge(), Local(), rounds=1)
    with only_one(tmp_path):
        with pytest.raises(FileError, match="another run writes"):
            fit(net, digits, epochs=1, optimizer=optimizer, callbacks=[Checkpoint(tmp_path)])
        with pytest.raises(FileError, match="another run writes"):
            federate(net, parts, rounds, folder=tmp_path)
    fit(
        net, digits, epochs=1, optimizer=optimizer,
        callbacks=[Checkpoint(tmp_path), Checkpoint(tmp_path, every_epochs=0, every_steps=1)],
    )  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["training.safetensors"]


def test_the_lock_of_a_killed_process_blocks_nobody(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with only_one(tmp_path):
            time.sleep(60)
        os._exit(1)
    try:
        until = time.monotonic() + 120
        while not (tmp_path / ".lock").exists() or not (tmp_path / ".lock").read_bytes():
            assert time.monotonic() < until
            time.sleep(0.001)
        with pytest.raises(FileError, match=rf"process {child} on "), only_one(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert (tmp_path / ".lock").exists(), "the file stays, the lock is gone"
    with only_one(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()
    assert list(tmp_path.iterdir()) == []


def test_many_processes_enter_one_after_the_other(tmp_path: Path) -> None:
    """Each adds 1 to a number in a file, which loses counts where two are inside at once."""
    folder, count = tmp_path / "held", tmp_path / "count"
    folder.mkdir()
    count.write_text("0")
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            done = 0
            while done < 50:
                try:
                    with only_one(folder):
                        before = int(count.read_text())
                        time.sleep(0)
                        count.write_text(str(before + 1))
                        done += 1
                except FileError:
                    time.sleep(0.0001)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert count.read_text() == "200"
    assert list(folder.iterdir()) == []


def test_trainings_to_one_file_both_finish(tmp_path: Path) -> None:
    """The last one's network is there, whole."""
    torch.set_num_threads(1)  # the processes are forked
    alone = []
    for seed in range(2):
        out = tmp_path / f"alone{seed}.safetensors"
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in ("train", *SHORT, "--seed", seed, "--out", out)])
        assert not stopped.value.code
        alone.append(out.read_bytes())
    out = tmp_path / "both.safetensors"
    children = []
    for seed in range(2):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                main([str(a) for a in ("train", *SHORT, "--seed", seed, "--out", out)])
            except SystemExit as stopped:
                code = int(stopped.code or 0)
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert out.read_bytes() in alone
    regraft.load(out)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "alone0.safetensors", "alone1.safetensors", "both.safetensors",
    ]  # fmt: skip
