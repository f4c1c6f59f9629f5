"""``regraft tournament``: rounds of files, resumed after an interruption."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from regraft import Topology, load, save, sparsify
from regraft.cli import main
from regraft.files import sha256
from regraft.models import build

GATES = ("--gates", "--merge-epochs", "2", "--finetune", "1", "--data", "digits", "--per-class", "10")


def network(path: Path, seed: int, model: str = "mlp:64-12-10", density: float | None = None) -> Path:
    generator = torch.Generator().manual_seed(seed)
    made = build(model, generator=generator)
    save(made if density is None else sparsify(made, density, generator=generator), path)
    return path


@pytest.fixture
def networks(tmp_path: Path) -> list[Path]:
    return [network(tmp_path / f"n{seed}.safetensors", seed) for seed in range(4)]


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return int(ended.value.code or 0)


def test_four_networks_become_two_and_one(
    networks: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, figures = tmp_path / "s.safetensors", tmp_path / "f.json"
    assert run("tournament", *networks, *GATES, "--out", out, "--json", figures) == 0
    printed = capsys.readouterr()
    assert "merged 4 networks in 3 matches" in printed.out
    assert "warning: round-1-match-1: the gates of 1 of 1 groups did not come" in printed.err
    kept = sorted(path.name for path in (tmp_path / "s").iterdir())
    assert kept == [f"round-{r}-match-{m}.safetensors" for r, m in ((1, 1), (1, 2), (2, 1))]
    assert load(out).fc1.out_features == 12
    found = json.loads(figures.read_text())
    assert [row["round"] for row in found["networks"]] == [0, 0, 0, 0, 1, 1, 2]
    assert found["networks"][-1]["from"] == ["round-1-match-1", "round-1-match-2"]
    assert all(0 <= row["accuracy"] <= 1 for row in found["networks"])


def test_matches_that_are_there_are_not_played_again(networks: list[Path], tmp_path: Path) -> None:
    out, figures = tmp_path / "s.safetensors", tmp_path / "f.json"

    def played(*more: object) -> list[bool]:
        assert run("tournament", *networks, *GATES, *more, "--out", out, "--json", figures) == 0
        return [row["played"] for row in json.loads(figures.read_text())["networks"][4:]]

    assert played() == [True, True, True]
    first = sha256(out)
    (tmp_path / "s" / "round-2-match-1.safetensors").unlink()
    assert played() == [False, False, True]
    assert sha256(out) == first
    network(networks[3], 9)
    assert played() == [False, True, True]
    assert played("--seed", 5) == [True, True, True]
    assert played("--seed", 5, "--test-per-class", 9) == [True, True, True]


def test_sparse_networks_are_merged_by_rules_too(tmp_path: Path) -> None:
    parents = [network(tmp_path / f"n{s}.safetensors", s, density=0.2) for s in range(3)]
    out = tmp_path / "s.safetensors"
    assert run("tournament", *parents, "--weights", "average", "--folder", tmp_path / "r", "--out", out) == 0
    assert Topology.of(load(out)).nnz == Topology.of(load(parents[0])).nnz
    assert (tmp_path / "r" / "round-2-match-1.safetensors").exists()
    out.unlink()
    assert run("tournament", *parents, "--select", "neurons", "--data", "digits", "--out", out) == 0
    assert out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gates", "--data", "digits"], "two networks or more, but got 1"),
        (["--size", "1"], "1 is not in the range"),
    ],
)
def test_bad_input_is_one_sentence(
    networks: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert run("tournament", networks[0], *arguments, "--out", tmp_path / "s.safetensors") == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert "Traceback" not in printed.err


def test_a_folder_that_cannot_be_made_is_one_sentence(
    networks: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("")
    out = tmp_path / "s.safetensors"
    assert run("tournament", *networks, "--out", out, "--folder", tmp_path / "taken" / "r") == 2
    assert "cannot make the folder" in capsys.readouterr().err
