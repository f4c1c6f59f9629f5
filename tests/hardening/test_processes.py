"""The same seed in two processes: the same bytes, whatever Python's hashes, and whoever does the work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.hardening.conftest import DICE

WORKER = Path(__file__).parent.parent / "workers" / "every_command.py"
TIMES = ("seconds", "started")
DIFFERS = ("results.sqlite",)  # its rows hold when a cell was done


def start(folder: Path, hashes: int, executor: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONHASHSEED": str(hashes)}
    return subprocess.Popen(
        [sys.executable, str(WORKER), str(folder), str(DICE), "1", executor], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def content(path: Path) -> object:
    """The bytes of a file; of a study's cell without its times, of a checkpoint likewise."""
    raw = path.read_bytes()
    if path.name == "result.json":
        return {k: v for k, v in json.loads(raw).items() if k not in TIMES}
    if path.name == "training.safetensors":
        length = int.from_bytes(raw[:8], "little")
        table = json.loads(raw[8 : 8 + length])
        told = json.loads(table["__metadata__"]["regraft-training"])
        return without_times(told), raw[8 + length :]
    return raw


def without_times(value: object) -> object:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if not str(k).endswith("seconds")}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    processes = [start(tmp_path / "one", 1, "inline"), start(tmp_path / "other", 4321, "pool")]
    said = [process.communicate(timeout=500)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    folders = [tmp_path / "one", tmp_path / "other"]
    files = [sorted(p.relative_to(f) for p in f.rglob("*") if p.is_file()) for f in folders]
    assert files[0] == files[1]
    assert len([p for p in files[0] if p.suffix == ".safetensors"]) >= 14
    for name in files[0]:
        if name.name not in DIFFERS:
            assert content(folders[0] / name) == content(folders[1] / name), name
