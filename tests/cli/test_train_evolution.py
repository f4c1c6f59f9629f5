"""``regraft train --evolve ...``: each way from options to a file, resumed to the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import regraft
from regraft.cli import main
from regraft.train import checkpoints

SMALL = (
    "--model", "mlp:in-24-classes", "--per-class", "20", "--test-per-class", "10", "--batch-size", "20",
    "--epochs", "3",
)  # fmt: skip
WAYS = {
    "rigl": ("--evolve", "rigl", "--density", "0.2", "--every", "3"),
    "search": ("--evolve", "search", "--density", "0.2", "--fraction", "0.1", "--every", "1", "--explore"),
    "search in two batches": (
        "--evolve",
        "search",
        "--density",
        "0.2",
        "--grow-batches",
        "3",
        "--every",
        "4",
    ),
    "lsh": (
        "--evolve",
        "search",
        "--search",
        "lsh",
        "--k-similar",
        "0.15",
        "--density",
        "0.2",
        "--every",
        "5",
    ),
    "gmp": ("--evolve", "gmp", "--density", "0.1", "--every", "4"),
    "dst": ("--evolve", "dst", "--alpha", "0.05"),
}


def call(*args: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in args])
    return int(stopped.value.code or 0)


@pytest.mark.parametrize("way", WAYS)
def test_killed_and_resumed_to_the_same_bytes(
    way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = ("train", *SMALL, *WAYS[way], "--checkpoint-steps", 1)
    whole, part = tmp_path / "whole", tmp_path / "part"
    assert call(*begin, "--out", whole, "--checkpoint", tmp_path / "1", "--json", tmp_path / "json") == 0
    save = checkpoints.save

    def interrupted(run: Any, path: Any) -> None:
        if run.step > 14:
            raise KeyboardInterrupt
        save(run, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", interrupted)
        assert call(*begin, "--out", part, "--checkpoint", tmp_path / "2") == 130
    assert call(*begin, "--out", part, "--checkpoint", tmp_path / "2", "--resume") == 0
    assert part.read_bytes() == whole.read_bytes()
    figures = json.loads((tmp_path / "json").read_text())
    density = regraft.Topology.of(regraft.load(whole)).density
    assert density == pytest.approx(figures["options"]["density"] or density, abs=1e-3)
    assert ("explored" in figures["history"][0]) == (way == "search")


def test_the_older_names_still_work(tmp_path: Path) -> None:
    old = ("--evolve", "search", "--density", "0.2", "--zeta", "0.1", "--evolve-every", "1", "--explore")
    assert call("train", *SMALL, *old, "--out", tmp_path / "old") == 0
    assert call("train", *SMALL, *WAYS["search"], "--out", tmp_path / "new") == 0
    assert (tmp_path / "old").read_bytes() == (tmp_path / "new").read_bytes()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--evolve", "rigle"), "did you mean 'rigl'"),
        (("--evolve", "search", "--k-similar", "2"), "k_similar"),
        (("--evolve", "search", "--search", "lsh", "--k-similar", "2"), "must be in (0, 1]"),
        (("--evolve", "gmp"), "give the density"),
        (("--evolve", "set", "--search", "svd"), "goes with evolve 'search'"),
        (("--evolve", "search", "--fraction", "2"), "must be in [0, 1]"),
    ],
)
def test_refused_in_one_sentence(
    args: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("train", *SMALL, *args, "--out", tmp_path / "n") == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert not (tmp_path / "n").exists()
