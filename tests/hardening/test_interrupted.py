"""Killed in the middle of writing: the old file or the new one, and nothing that stands in the way."""

from __future__ import annotations

import ast
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tests.hardening.conftest import make_net
from torch import nn

import regraft
from regraft import container, export
from regraft.cli.common import write_json
from regraft.container import atomic_write
from regraft.errors import FileError
from regraft.federated import state as federated
from regraft.files import NetworkFile
from regraft.prune.rounds import Saved
from regraft.prune.rounds import State as Rounds
from regraft.topology import Topology

KILLS = int(os.environ.get("REGRAFT_KILLS", "10"))  # more of them: REGRAFT_KILLS=200 pytest ... -k killed
SOURCE = Path(regraft.__file__).parent
NETS = [make_net(0), make_net(1)]


def federation(folder: Path, version: int) -> None:
    federated.save(federated.State(NETS[version], history=[{"round": 0, "v": version}]), folder, {})


def rounds(folder: Path, version: int) -> None:
    net = NETS[version]
    Saved(folder, {"v": version}, ()).save(Rounds(net, None, Topology.of(net)))


def merged(folder: Path, version: int) -> None:
    merger = regraft.Merger(weights="average")
    merger.add(NETS[version]).add(NETS[version])
    merger.write(folder / "merged.safetensors")


# each writes one of two versions of the same file
WRITERS: dict[str, Callable[[Path, int], object]] = {
    "network": lambda folder, v: regraft.save(NETS[v], folder / "n.safetensors", provenance={"v": v}),
    "merged file": merged,
    "federation": federation,
    "pruning": rounds,
    "C": lambda folder, v: export.to_c(NETS[v], folder / "n.c"),
    "NumPy": lambda folder, v: export.to_npz(NETS[v], folder / "n.npz"),
    "JSON": lambda folder, v: write_json(str(folder / "f.json"), {"v": v, "list": [v] * 500}),
}


@contextmanager
def writing(write: Callable[[Path, int], object], folder: Path) -> Iterator[int]:
    """A process that writes one version after the other until it is killed."""
    child = os.fork()
    if child == 0:
        try:
            for i in range(10**6):
                write(folder, i % 2)
        finally:
            os._exit(1)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL, "it must not end by itself"


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@pytest.mark.parametrize("kind", WRITERS)
def test_killed_while_writing(kind: str, tmp_path: Path) -> None:
    write, chance = WRITERS[kind], random.Random(kind)
    torch.set_num_threads(1)  # the processes are forked
    versions = []
    for v in (0, 1):
        folder = tmp_path / f"version {v}"
        folder.mkdir()
        write(folder, v)
        versions.append(content(folder))
    (name,) = versions[0]
    assert versions[0] != versions[1]
    folder = tmp_path / "killed"
    folder.mkdir()
    for _ in range(KILLS):
        before = (folder / name).stat().st_ino if (folder / name).exists() else 0
        with writing(write, folder):
            until = time.monotonic() + 120
            while not (folder / name).exists() or (folder / name).stat().st_ino == before:
                assert time.monotonic() < until, "nothing was written"
                time.sleep(0.0005)
            time.sleep(chance.uniform(0, 0.006))
        found = content(folder)
        assert found.pop(name) in (versions[0][name], versions[1][name])
        assert set(found) <= {f".{name}.tmp"}, "at most one leftover, whatever the number of kills"
    write(folder, 1)
    assert content(folder) == versions[1], "the next writer uses the leftover up"


def test_a_leftover_that_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with atomic_write(path) as first:
        first.write(b"first")
        with atomic_write(path) as second:
            second.write(b"second")
        assert path.read_bytes() == b"second"
    assert content(tmp_path) == {"a": b"first"}


@pytest.mark.parametrize("kind", ["link", "folder", "shared", "unreadable"])
def test_a_strange_thing_under_the_temporary_name_is_left_alone(kind: str, tmp_path: Path) -> None:
    path, strange, other = tmp_path / "a", tmp_path / ".a.tmp", tmp_path / "other"
    other.write_bytes(b"other")
    if kind == "link":
        strange.symlink_to(other)
    elif kind == "folder":
        strange.mkdir()
    elif kind == "shared":
        os.link(other, strange)
    else:
        strange.touch(mode=0o000)
    with atomic_write(path) as file:
        file.write(b"whole")
    assert (path.read_bytes(), other.read_bytes()) == (b"whole", b"other")


def test_names_as_long_as_a_file_system_takes(tmp_path: Path) -> None:
    for name in ("n" * 255, "ä" * 127):
        for text in (b"1", b"2"):
            with atomic_write(tmp_path / name) as file:
                file.write(text)
        assert (tmp_path / name).read_bytes() == b"2"


def test_a_file_replaced_while_it_is_read_is_told(tmp_path: Path) -> None:
    """Its table would be read with another network's numbers."""
    path = tmp_path / "n.safetensors"
    regraft.save(make_net(0), path)
    with NetworkFile(path) as file:
        name = f"{next(iter(file.shapes))}.values"
        first = file.read(name)
        file.close()
        assert torch.equal(file.read(name), first), "reading after closing opens it again"
        file.close()
        regraft.save(make_net(1), path)
        with pytest.raises(FileError, match="written anew while it was being read"):
            file.read(name)


# what may open files for writing: container.py, and parts of cells, which appear by a rename
WRITES = {
    "container.py", "studies/run/perform.py", "studies/run/executors/cluster.py", "data/openml.py",
}  # fmt: skip


MAY_WRITE = re.compile(r"open\(|write_text|write_bytes|save_file|copyfile|copy2")


def writes(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        texts = [
            a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)
        ]
        modes = [t for t in texts if isinstance(t, str) and 0 < len(t) <= 3 and not set(t) - set("rwxab+t")]
        if (name in ("open", "fdopen") and any(set(m) & set("wxa+") for m in modes)) or name in (
            "write_text", "write_bytes", "save_file", "copyfile", "copy2",
        ):  # fmt: skip
            yield name


def test_every_file_is_written_by_the_one_atomic_writer() -> None:
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if MAY_WRITE.search(text := path.read_text()) and any(writes(ast.parse(text)))
    }
    assert found - {"federated/flower/simulation.py"} == WRITES  # that one writes to a temporary folder
    assert set(writes(ast.parse("a.open('wb'); open(x, mode='a'); p.write_text('')"))) == {
        "open",
        "write_text",
    }
    assert not set(writes(ast.parse("open(x, 'rb'); _open(x)")))


def test_no_lock_where_the_file_system_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "_take", lambda descriptor: None)
    for text in (b"1", b"2"):
        with atomic_write(tmp_path / "a") as file:
            file.write(text)
    assert (tmp_path / "a").read_bytes() == b"2"
    with container.only_one(tmp_path), container.only_one(tmp_path):
        pass


def test_a_leftover_of_half_a_file_is_used_up(tmp_path: Path) -> None:
    (tmp_path / ".n.safetensors.tmp").write_bytes(b"half of a file")
    regraft.save(nn.Linear(3, 2), tmp_path / "n.safetensors")
    assert sorted(content(tmp_path)) == ["n.safetensors"]
