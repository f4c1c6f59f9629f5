"""``regraft distance``: figures against sets of pairs, pictures, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from regraft import save, sparsify
from regraft.cli import main
from regraft.files import read_network
from regraft.models import build


def network(path: Path, seed: int, model: str = "mlp:16-12-10", density: float | None = 0.3) -> Path:
    generator = torch.Generator().manual_seed(seed)
    made = build(model, generator=generator)
    save(made if density is None else sparsify(made, density, generator=generator), path)
    return path


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return [network(tmp_path / f"n{seed}.safetensors", seed, density=0.2 + 0.1 * seed) for seed in range(3)]


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return int(ended.value.code or 0)


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert run(*arguments) == 2
    return capsys.readouterr().err


def connections(path: Path) -> dict[str, set[int]]:
    tensors, header = read_network(path)
    return {name: set(tensors[f"{name}.index"].tolist()) for name in header.shapes}


def test_figures_against_sets(three: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("distance", *three, "--json", "-") == 0
    figures = json.loads(capsys.readouterr().out)
    assert [(p["a"], p["b"]) for p in figures["pairs"]] == [
        (str(three[i]), str(three[j])) for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    for pair in figures["pairs"]:
        a, b = connections(Path(pair["a"])), connections(Path(pair["b"]))
        unique = overlap = 0
        for layer in pair["layers"]:
            mine, theirs = a[layer["name"]], b[layer["name"]]
            assert layer["shared"] == len(mine & theirs)
            assert layer["nnstd"] == pytest.approx(len(mine ^ theirs) / len(mine | theirs))
            assert layer["jaccard"] == pytest.approx(len(mine & theirs) / len(mine | theirs))
            unique, overlap = unique + len(mine ^ theirs), overlap + len(mine & theirs)
        assert pair["nnstd"] == pytest.approx(unique / (unique + overlap))
        assert pair["jaccard"] == pytest.approx(1 - pair["nnstd"])


def test_the_expected_distance_is_the_thesis_formula(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """2S / (1 + S) at one sparsity, and the distance of random topologies comes close to it."""
    paths = [network(tmp_path / f"{s}", s, "mlp:200-100", density=0.1) for s in range(2)]
    assert run("distance", *paths, "--json", "-") == 0
    pair = json.loads(capsys.readouterr().out)["pairs"][0]
    assert pair["expected_nnstd"] == pytest.approx(2 * 0.9 / 1.9)
    assert pair["nnstd"] == pytest.approx(pair["expected_nnstd"], abs=0.01)


def test_equal_networks_are_at_distance_zero(three: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("distance", three[0], three[0]) == 0
    whole = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("whole"))
    assert "0.0000" in whole
    assert "1.0000" in whole


def test_more_than_two_give_a_matrix(three: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("distance", *three) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [[c.strip() for c in line.split("│")[1:]] for line in lines if "│" in line]
    assert [rows[i][i] for i in range(3)] == ["-"] * 3
    assert all(rows[i][j] == rows[j][i] for i in range(3) for j in range(3))
    assert "expected of independent uniform topologies" in lines[-1]


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_connectivity_pattern_is_drawn(
    three: list[Path], tmp_path: Path, suffix: str, start: bytes
) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / f"p.{suffix}"
    assert run("distance", *three, "--pattern", out, "--image", "2x8") == 0
    assert out.read_bytes().startswith(start)


def test_bad_input(three: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "needs two networks or more" in failure(capsys, "distance", three[0])
    other = network(tmp_path / "other", 0, "mlp:16-13-10")
    text = failure(capsys, "distance", three[0], other)
    assert f"'{three[0]}' and '{other}' differ: weight 'fc1.weight' has shape" in text
    dense = network(tmp_path / "dense", 0, density=None)
    assert "has no sparse weight" in failure(capsys, "distance", three[0], dense)
    assert "No such file" in failure(capsys, "distance", three[0], tmp_path / "gone")
    assert "image is '3by4', but must be" in failure(capsys, "distance", *three, "--image", "3by4")


def test_bad_pictures(three: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert "must end in .png" in failure(capsys, "distance", *three, "--pattern", tmp_path / "p.gif")
    text = failure(capsys, "distance", *three, "--pattern", tmp_path / "p.png", "--image", "3x4")
    assert "the first layer has 16 inputs, which do not fill an image of 3x4" in text
    assert not (tmp_path / "p.png").exists()
