"""What a look into a wheel and an sdist finds; the real ones are looked into by `make wheel`."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from pathlib import Path

import pytest
from tests.release.test_check import ROOT, script

look = script("inspect_dist")
repack = script("repack")
WHEEL = "regraft-0.1.0-cp311-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64.whl"


def wheel(path: Path, without: str = "", more: tuple[str, ...] = ()) -> Path:
    wanted = sorted(look.KERNELS | look.ASSETS)
    names = [*wanted, "regraft/__init__.py", "regraft-0.1.0.dist-info/RECORD", *more]
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            if name != without:
                archive.writestr(name, "")
    return path


def sdist(path: Path, names: list[str], time: int = 0) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            entry = tarfile.TarInfo(f"regraft-0.1.0/{name}")
            entry.size, entry.mtime, entry.uid, entry.mode = len(name), time, time % 1000, 0o600
            archive.addfile(entry, io.BytesIO(name.encode()))
    return path


def test_a_good_wheel_has_no_faults(tmp_path: Path) -> None:
    assert look.faults_of_wheel(wheel(tmp_path / WHEEL)) == []


@pytest.mark.parametrize("name", sorted(look.KERNELS | look.ASSETS))
def test_each_kernel_and_each_asset_is_missed(name: str, tmp_path: Path) -> None:
    assert look.faults_of_wheel(wheel(tmp_path / WHEEL, without=name)) == [f"{WHEEL} lacks {name}"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("regraft-0.1.0-cp311-abi3-linux_x86_64.whl", "is not named as a wheel"),
        ("regraft-0.1.0-cp312-cp312-manylinux_2_17_x86_64.whl", "is not named as a wheel"),
        ("regraft-0.1.0-py3-none-any.whl", "is not named as a wheel"),
        ("regraft-0.1.0-cp311-abi3-manylinux_2_34_x86_64.whl", "asks for glibc 2.34"),
    ],
)
def test_the_name_says_where_it_runs(name: str, told: str, tmp_path: Path) -> None:
    (fault,) = look.faults_of_wheel(wheel(tmp_path / name))
    assert told in fault


@pytest.mark.parametrize("stray", ["tests/test_a.py", "regraft/kernels/csrc/pool.c", "regraft/a.pyc"])
def test_what_does_not_belong_into_a_wheel_is_found(stray: str, tmp_path: Path) -> None:
    assert len(look.faults_of_wheel(wheel(tmp_path / WHEEL, more=(stray,)))) == 1


def test_an_sdist_holds_every_committed_source_and_nothing_built(tmp_path: Path) -> None:
    files = {"src/regraft/a.py", "src/regraft/kernels/csrc/pool.c", "docs/index.md"}
    inside = ["setup.py", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"]
    whole = [*inside, "src/regraft/a.py", "src/regraft/kernels/csrc/pool.c"]
    assert look.faults_of_sdist(sdist(tmp_path / "a.tar.gz", whole), files) == []
    assert look.faults_of_sdist(sdist(tmp_path / "b.tar.gz", whole[:-1]), files) == [
        "b.tar.gz lacks src/regraft/kernels/csrc/pool.c"
    ]
    (fault,) = look.faults_of_sdist(sdist(tmp_path / "c.tar.gz", [*whole, "src/regraft/_x.so"]), files)
    assert fault == "c.tar.gz holds src/regraft/_x.so"


def test_an_sdist_packed_anew_depends_on_its_files_alone(tmp_path: Path) -> None:
    names = ["a.py", "b.py", "src/c.py"]
    once, again = sdist(tmp_path / "x.tar.gz", names, time=1), tmp_path / "other"
    again.mkdir()
    sdist(again / "x.tar.gz", names[::-1], time=10**9)
    first = repack.repack(once, tmp_path / "first", 1_700_000_000)
    second = repack.repack(again / "x.tar.gz", tmp_path / "second", 1_700_000_000)
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as archive:
        assert archive.extractfile("regraft-0.1.0/src/c.py").read() == b"src/c.py"
        assert {entry.mtime for entry in archive} == {1_700_000_000}


def test_what_builds_a_release_is_pinned() -> None:
    lines = (ROOT / "release" / "requirements.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", line) for line in lines if not line.startswith("#"))
