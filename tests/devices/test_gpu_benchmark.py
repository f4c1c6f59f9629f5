"""benchmarks/gpu.py: it runs wherever there is a device, and reads a crossover from what it measured."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from regraft.kernels import backends, dispatch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = ("--sizes", "16x12,8x20", "--batches", "1,4", "--densities", "0.1,0.5", "--rounds", "2")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if not BENCHMARKS.is_dir():
        pytest.skip("no benchmarks beside these tests")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_it_measures_all_ways_and_leaves_the_choice_alone(
    gpu: ModuleType, device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here (torch.cuda.is_available() is false)")
    before = dispatch.current(), backends.current()
    made = gpu.main([*SMALL, "--device", device, "--json", str(tmp_path / "gpu.json")])
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert len(report["rows"]) == 8
    names = {"materialised", "dense", *backends.installed(device)}
    assert all(set(row["ways"]) == names for row in report["rows"])
    assert set(made) == set(backends.installed(device))
    assert "up to density" in capsys.readouterr().out
    assert (dispatch.current(), backends.current()) == before


def test_without_a_gpu_it_says_so(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "no CUDA device here" in capsys.readouterr().err


def test_the_crossover_is_where_the_first_case_becomes_slower(gpu: ModuleType) -> None:
    assert gpu.crossover([{0.1: 2.0, 0.2: 1.5, 0.3: 0.9}, {0.1: 3.0, 0.2: 0.99, 0.3: 4.0}]) == 0.1
    assert gpu.crossover([{0.1: 2.0, 0.2: 1.5}]) == 0.2
    assert gpu.crossover([{0.1: 0.5, 0.2: 1.5}]) == 0.0
