"""``regraft train --teacher``: what it changes, what it writes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.test_train import call, refused, train

import regraft
from regraft import checkpoint
from regraft.files import sha256


@pytest.fixture
def teachers(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"teacher{seed}" for seed in range(2)]
    for seed, path in enumerate(paths):
        assert train(path, "--seed", seed) == 0
    return paths


def test_teachers_enter_the_loss_and_the_file(
    teachers: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [word for path in teachers for word in ("--teacher", path)]
    taught, alone = tmp_path / "taught", tmp_path / "alone"
    assert train(alone) == 0
    capsys.readouterr()
    assert train(taught, *options, "--teacher-weight", 0.8, "--temperature", 3, "--json", "-") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["step"].startswith("ordinary: the fused step knows labels only")
    assert figures["teachers"] == {
        "networks": [{"file": str(p), "sha256": sha256(p)} for p in teachers],
        "weight": 0.8, "temperature": 3.0,
    }  # fmt: skip
    assert checkpoint.read_header(taught).provenance["teachers"] == figures["teachers"]
    assert "teachers" not in checkpoint.read_header(alone).provenance
    mine, theirs = (regraft.load(p).state_dict() for p in (taught, alone))
    assert not mine["fc1.bias"].equal(theirs["fc1.bias"])


def test_a_training_with_teachers_resumes(teachers: list[Path], tmp_path: Path) -> None:
    whole, part, folder = tmp_path / "whole", tmp_path / "part", tmp_path / "state"
    options = ("--teacher", teachers[0], "--start", teachers[1])
    assert call("train", *options, "--epochs", 2, "--out", whole) == 0
    resumed = ("--checkpoint", folder, "--resume", "--epochs", 2, "--out", part)
    for _ in range(2):  # the second time from the checkpoint of the first
        assert call("train", *options, *resumed) == 0
        assert whole.read_bytes() == part.read_bytes()
    assert call("train", "--teacher", teachers[1], "--start", teachers[1], *resumed) == 2


def test_refuses(teachers: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", tmp_path / "n")
    capsys.readouterr()
    for option in ("--teacher-weight", "--temperature"):
        assert f"{option} says how much teachers count" in refused(capsys, option, 0.5, *out)
    one = ("--teacher", teachers[0])
    assert "the teachers' weight is 2.0" in refused(capsys, *one, "--teacher-weight", 2, *out)
    assert "the temperature is 0.0" in refused(capsys, *one, "--temperature", 0, *out)
    assert "No such file" in refused(capsys, "--teacher", tmp_path / "none", *out)
    for options, fault in (
        (("--loss", "mse"), "compared through a softmax"),
        (("--data", "iris"), "does not take samples of shape (4,)"),
    ):
        assert call("train", *one, *options, *out) == 2
        assert fault in capsys.readouterr().err
    assert not (tmp_path / "n").exists()
