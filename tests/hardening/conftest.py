"""What the tests of hard conditions share: small networks on disk, the command line in this process."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch import nn

import regraft
from regraft.cli import main
from regraft.models import build
from regraft.train import seeds

Call = Callable[..., int]

DICE = Path(__file__).parent.parent / "studies" / "run" / "dice_study.py"


@pytest.fixture(scope="session")
def call() -> Call:
    """``call("merge", ...)``: the exit code of a command."""

    def run(*args: object) -> int:
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in args])
        return int(stopped.value.code or 0)

    return run


def make_net(seed: int = 0) -> nn.Module:
    """A sparse MLP for 8 x 8 images."""
    g = seeds.stream(seed, "net")
    return regraft.sparsify(build("mlp:64-12-10", generator=g), density=0.3, generator=g)


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two networks on disk."""
    folder = tmp_path_factory.mktemp("networks")
    paths = [folder / f"n{i}.safetensors" for i in range(2)]
    for i, path in enumerate(paths):
        regraft.save(make_net(i), path)
    return paths


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of the study of dice."""
    folder = tmp_path_factory.mktemp("results") / "studies"
    with pytest.raises(SystemExit) as stopped:
        main(
            ["study", "run", str(DICE), "--preset", "smoke", "--folder", str(folder), "--executor", "inline"]
        )
    assert not stopped.value.code
    return folder


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of its own with 1 MB; only the superuser can make one."""
    place = tmp_path_factory.mktemp("disk")
    if mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", place):
        pytest.skip("a file system of a known size cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def mount(*args: object) -> int:
    """The exit code of ``mount``; 1 where there is none."""
    try:
        return subprocess.run(["mount", *map(str, args)], capture_output=True, check=False).returncode
    except OSError:
        return 1
