"""Real processes, killed at random moments: the resumed run ends with the same file, byte for byte."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from regraft.train import checkpoints

WORKER = Path(__file__).parent.parent / "workers" / "train_and_save.py"


def start(folder: Path, out: Path, optimizer: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(WORKER), str(folder), str(out), optimizer]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "times"), [("adam", 2), ("sgd", 1)])
def test_killed_and_resumed(optimizer: str, times: int, tmp_path: Path) -> None:
    whole = start(tmp_path / "whole", tmp_path / "whole.safetensors", optimizer)
    folder, out = tmp_path / "killed", tmp_path / "killed.safetensors"
    chance = random.Random(optimizer)
    kills, seen = 0, -1.0
    while kills < times and not out.exists():
        process = start(folder, out, optimizer)
        # wait until this process has written something, so that every life gets further
        while process.poll() is None and written(folder) <= seen:
            time.sleep(0.005)
        seen = written(folder)
        time.sleep(chance.uniform(0.0, 0.25))
        process.kill()
        process.communicate()
        kills += process.returncode == -9
    assert kills > 0
    finish(start(folder, out, optimizer))
    finish(whole)
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    config, state = checkpoints.read(folder / checkpoints.FILE)
    assert (state["epoch"], config["seed"]) == (10, 1)


def written(folder: Path) -> float:
    path = folder / checkpoints.FILE
    return path.stat().st_mtime_ns if path.exists() else -1.0
