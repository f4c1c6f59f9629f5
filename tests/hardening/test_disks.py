"""Full and read-only disks, and devices in place of files: one sentence, and what was there stays."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from tests.hardening.conftest import DICE, make_net, mount

import regraft
from regraft.cli import main
from regraft.cli.app import cli
from regraft.cli.study.group import command as study
from regraft.container import atomic_write, is_device
from regraft.errors import FileError

TINY = ("--model", "mlp:in-12-classes", "--per-class", 6, "--test-per-class", 3, "--batch-size", 20)
SHORT = (*TINY, "--epochs", 1)
PRUNE = ("prune", *SHORT, "--density", 0.2)
FEDERATE = ("federate", *TINY, "--clients", 2, "--rounds", 1)
DEMO = ("demo", "--networks", 2, "--epochs", 1, "--per-class", 6, "--test-per-class", 3)
STORED = (DICE, "--preset", "smoke", "--folder", "{results}")

# Each way to write a file: the arguments, where {to} is the place; "{ok}" is one that can be written to.
WAYS: dict[str, tuple[object, ...]] = {
    "train": ("train", *SHORT, "--out", "{to}.safetensors"),
    "train --json": ("train", *SHORT, "--out", "{ok}", "--json", "{to}.json"),
    "train --checkpoint": ("train", *SHORT, "--out", "{ok}", "--checkpoint", "{to}"),
    "train --tensorboard": ("train", *SHORT, "--out", "{ok}", "--tensorboard", "{to}"),
    "prune": (*PRUNE, "--out", "{to}.safetensors"),
    "prune --trained": (*PRUNE, "--out", "{ok}", "--trained", "{to}.safetensors"),
    "prune --checkpoint": (
        *PRUNE, "--schedule", "iterative", "--rounds", 1, "--out", "{ok}", "--checkpoint", "{to}",
    ),
    "merge": ("merge", "{n0}", "{n1}", "--out", "{to}.safetensors"),
    "merge in memory": ("merge", "{n0}", "{n1}", "--align", "weights", "--out", "{to}.safetensors"),
    "tournament": ("tournament", "{n0}", "{n1}", "--out", "{to}.safetensors"),
    "tournament --folder": ("tournament", "{n0}", "{n1}", "--out", "{ok}", "--folder", "{to}"),
    "federate": (*FEDERATE, "--out", "{to}.safetensors"),
    "federate --state": (*FEDERATE, "--out", "{ok}", "--state", "{to}"),
    "evaluate": ("evaluate", "{n0}", "--data", "digits", "--json", "{to}.json"),
    "compare": ("compare", "{n0}", "{n1}", "--html", "{to}.html"),
    "distance": ("distance", "{n0}", "{n1}", "--pattern", "{to}.svg"),
    "inspect": ("inspect", "{n0}", "--json", "{to}.json"),
    "export c": ("export", "{n0}", "--out", "{to}.c"),
    "export npz": ("export", "{n0}", "--out", "{to}.npz"),
    "doctor": ("doctor", "--json", "{to}.json"),
    "demo": (*DEMO, "--out", "{to}"),
    "study run": ("study", "run", DICE, "--preset", "smoke", "--folder", "{to}", "--executor", "inline"),
    "study report": ("study", "report", *STORED, "--out", "{to}"),
    "study export csv": ("study", "export", *STORED, "--out", "{to}.csv"),
    "study export json": ("study", "export", *STORED, "--format", "json", "--out", "{to}.json"),
    "study export tensorboard": ("study", "export", *STORED, "--format", "tensorboard", "--out", "{to}"),
    "study list": ("study", "list", "--json", "{to}.json"),
    "study query": ("study", "query", "SELECT 1", "--folder", "{results}", "--json", "{to}.json"),
    "study query --csv": ("study", "query", "SELECT 1", "--folder", "{results}", "--csv", "{to}.csv"),
}  # fmt: skip
KEPT = b"what was there before"


def writing(group: click.Command) -> set[str]:
    """The commands of a group that have an option for where something is written."""
    assert isinstance(group, click.Group)
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    places = {"out", "json_path", "html", "pattern"}
    return {name for name, c in found.items() if c is not None and places & {p.name for p in c.params}}


def test_every_command_that_writes_is_here() -> None:
    assert writing(cli) == {str(way[0]) for way in WAYS.values()} - {"study"}
    assert writing(study) == {str(way[1]) for way in WAYS.values() if way[0] == "study"}


def filled(way: str, to: Path, ok: Path, networks: list[Path], results: Path) -> list[str]:
    words = {"{to}": to, "{ok}": ok, "{n0}": networks[0], "{n1}": networks[1], "{results}": results}
    args = []
    for arg in WAYS[way]:
        text = str(arg)
        for word, value in words.items():
            text = text.replace(word, str(value))
        args.append(text)
    return args


def refused(capsys: pytest.CaptureFixture[str], args: list[str]) -> str:
    """The one sentence of a refusal."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(args)
    said = capsys.readouterr().err.strip()
    assert stopped.value.code == 2, said
    return said.splitlines()[-1]


@pytest.fixture
def full_disk(small_disk: Path) -> Iterator[Path]:
    """A disk without a free byte, on which files of some names lie already."""
    places = [
        small_disk / f"old{end}" for end in (".safetensors", ".json", ".html", ".svg", ".csv", ".c", ".npz")
    ]
    for place in places:
        place.write_bytes(KEPT)
    with contextlib.suppress(OSError), open(small_disk / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    yield small_disk
    assert all(place.read_bytes() == KEPT for place in places)
    for path in small_disk.rglob("*"):
        assert not path.name.endswith(".tmp"), "what was not written whole is gone"
        if path.is_file():
            path.unlink()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's thread
@pytest.mark.parametrize("way", WAYS)
def test_a_full_disk_is_one_sentence(
    way: str, full_disk: Path, networks: list[Path], results: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    said = refused(capsys, filled(way, full_disk / "old", tmp_path / "ok", networks, results))
    assert "No space left on device" in said
    assert str(full_disk) in said


@pytest.fixture(scope="module")
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that cannot be written to, not even by the superuser."""
    place = tmp_path_factory.mktemp("read-only")
    (place / "old.safetensors").write_bytes(KEPT)
    if os.geteuid():
        place.chmod(0o555)
        yield place
        place.chmod(0o755)
    elif mount("--bind", place, place) or mount("-o", "remount,bind,ro", place):
        pytest.skip("no folder can be made read-only here")
    else:
        yield place
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("way", WAYS)
def test_a_read_only_folder_is_one_sentence(
    way: str, read_only: Path, networks: list[Path], results: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    said = refused(capsys, filled(way, read_only / "old", tmp_path / "ok", networks, results))
    assert str(read_only) in said
    assert "Read-only" in said or "ermission" in said
    assert [p.name for p in read_only.iterdir()] == ["old.safetensors"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_an_error_of_the_disk_leaves_the_file(
    code: int, at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "n.safetensors"
    regraft.save(make_net(0), path)
    before = path.read_bytes()

    def fails(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, at, fails)
        with pytest.raises(FileError, match=os.strerror(code)):
            regraft.save(make_net(1), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]
    regraft.save(make_net(1), path)
    assert path.read_bytes() != before


def test_devices_are_written_to_and_stay(tmp_path: Path, networks: list[Path], call: Any) -> None:
    """An atomic write used to put a file in their place, where it was allowed to."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with atomic_write(pipe) as file:
        file.write(b"whole")
    assert (os.read(reader, 100), is_device(pipe)) == (b"whole", True)
    os.close(reader)
    assert os.listdir(tmp_path) == ["pipe"]
    assert call("inspect", networks[0], "--json", "/dev/null") == 0
    assert is_device("/dev/null")


@pytest.mark.skipif(not is_device("/dev/full"), reason="this system has no /dev/full")
def test_output_that_cannot_be_written_is_one_sentence(
    networks: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "'/dev/full' (No space left" in refused(
        capsys, ["inspect", str(networks[0]), "--json", "/dev/full"]
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "regraft", "inspect", str(networks[0])], stdout=full,
            stderr=subprocess.PIPE, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "No space left on device" in done.stderr


def test_a_disk_that_fills_up_in_the_middle_of_a_study_loses_nothing(
    small_disk: Path, capsys: pytest.CaptureFixture[str], call: Any
) -> None:
    filler = small_disk / "filler"
    args = ["study", "run", str(DICE), "--preset", "smoke", "--folder", str(small_disk / "s")]
    args += ["--executor", "inline"]
    filler.write_bytes(bytes(850_000))
    said = refused(capsys, args)
    assert "make room" in said
    done = len(list((small_disk / "s" / "cells").glob("*/*/result.json")))
    filler.unlink()
    assert call(*args) == 0
    assert len(list((small_disk / "s" / "cells").glob("*/*/result.json"))) == 24 > done > 0
    assert not list((small_disk / "s" / "parts").iterdir())


def test_a_network_that_cannot_be_written_is_still_in_memory(tmp_path: Path) -> None:
    net = make_net()
    with pytest.raises(FileError, match="does not exist"):
        regraft.save(net, tmp_path / "no" / "n.safetensors")
    regraft.save(net, tmp_path / "n.safetensors")
    back = regraft.load(tmp_path / "n.safetensors")
    assert all(
        torch.equal(a, b) for a, b in zip(net.state_dict().values(), back.state_dict().values(), strict=True)
    )


def test_what_a_merge_keeps_aside_lies_beside_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the folder of temporary files, which may be small, or in memory."""
    nets = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for seed, path in enumerate(nets):
        index = torch.randperm(2_000_000)[:400_000].sort().values
        weight = regraft.SparseWeight((1000, 2000), index, torch.randn(400_000))
        regraft.save(torch.nn.Sequential(regraft.SparseLinear(weight, None)), path, provenance={"seed": seed})
    asked = []
    real = tempfile.TemporaryFile

    def noting(*args: Any, **options: Any) -> Any:
        asked.append(options.get("dir"))
        return real(*args, **options)

    monkeypatch.setattr(tempfile, "TemporaryFile", noting)
    (tmp_path / "out").mkdir()
    regraft.merge_files(nets, tmp_path / "out" / "m.safetensors", density=None)
    assert asked == [str(tmp_path / "out")], "more than a megabyte of values"
    assert os.listdir(tmp_path / "out") == ["m.safetensors"]
