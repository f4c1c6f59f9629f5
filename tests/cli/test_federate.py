"""``regraft federate``: what it writes and prints, resuming, and how bad input ends."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from regraft import Topology, load
from regraft.checkpoint import read_header
from regraft.cli import main

SMALL = (
    "federate", "--per-class", 30, "--test-per-class", 10, "--model", "mlp:64-16-10", "--density", 0.3,
    "--clients", 3, "--rounds", 2, "--batch-size", 20, "--lr", 0.1,
)  # fmt: skip


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return int(ended.value.code or 0)


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one sentence of a command that must fail with exit code 2."""
    capsys.readouterr()
    assert run(*arguments) == 2
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return printed.err


def equal(a: Path, b: Path) -> bool:
    mine, theirs = load(a).state_dict(), load(b).state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


def test_trains_and_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, figures = tmp_path / "g.safetensors", tmp_path / "f.json"
    assert run(*SMALL, "--partition", "dirichlet:0.5", "--align", "--out", out, "--json", figures) == 0
    printed = capsys.readouterr().out
    assert "3 clients with" in printed
    assert "after 2 rounds of 3 clients" in printed
    told = json.loads(figures.read_text())
    assert [row["accepted"] for row in told["rounds"]] == [3, 3]
    assert sum(told["examples"]) == 300
    assert told["network"]["density"] == pytest.approx(0.3, abs=0.01)
    assert read_header(out).provenance["partition"] == "dirichlet:0.5"
    assert "align='weights'" in told["federation"]["strategy"]


def test_the_same_command_gives_the_same_network(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        assert run(*SMALL, "--seed", seed, "--out", path) == 0
    assert equal(paths[0], paths[1])
    assert not equal(paths[0], paths[2])


def test_goes_on_after_an_interruption(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, again, state = tmp_path / "w.safetensors", tmp_path / "a.safetensors", tmp_path / "state"
    assert run(*SMALL, "--out", whole, "--state", state) == 0
    (state / "round-000002.safetensors").unlink()  # as if it had been killed in the last round
    assert "pass resume to go on" in failure(capsys, *SMALL, "--out", again, "--state", state)
    assert run(*SMALL, "--out", again, "--state", state, "--resume") == 0
    assert equal(whole, again)


@pytest.mark.parametrize(
    "options",
    [
        ("--baseline", "dense-fedavg"), ("--baseline", "feddst"), ("--baseline", "centralised"),
        ("--robust", "trimmed:0.2"), ("--neurons",), ("--wire", "bfloat16"), ("--fraction", 0.5),
        ("--weigh", "clients", "--clip", 5, "--noise", 0.0001), ("--evolve", "rigl", "--rate", "cosine"),
        ("--lost", 0.3), ("--over", "present", "--together"),
        ("--scope", "global", "--lr-schedule", "cosine"), ("--topology", "ring", "--exchanges", 2),
    ],
)  # fmt: skip
def test_options(tmp_path: Path, options: tuple[object, ...]) -> None:
    out = tmp_path / "g.safetensors"
    assert run(*SMALL, *options, "--out", out) == 0
    if "dense-fedavg" not in options:
        assert Topology.of(load(out)).nnz


@pytest.mark.parametrize("topology", ["ring", "full"])
def test_without_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str], topology: str) -> None:
    out = tmp_path / "g.safetensors"
    assert run(*SMALL, "--topology", topology, "--out", out) == 0
    assert "test accuracy" in capsys.readouterr().out
    assert Topology.of(load(out)).density == pytest.approx(0.3, abs=0.01)


def test_the_last_good_network_is_written_where_a_round_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "g.safetensors"
    options = (*SMALL, "--out", out, "--lost", 0.2, "--min-fit", 2, "--rounds", 30)
    said = failure(capsys, *options)
    assert "usable updates, but needs 2" in said
    assert f"is in '{out}'" in said
    assert load(out)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--clients", 500), "500 clients are more than the 300 samples"),
        (("--partition", "dirichlett:1"), "did you mean 'dirichlet'"),
        (("--partition", "dirichlet:0.001", "--clients", 100), "take a larger alpha"),
        (("--evolve", "sett"), "did you mean 'set'"),
        (("--rounds", 0), "rounds is 0"),
        (("--density", 2), "density is 2.0"),
        (("--robust", "mean"), "unknown robust rule"),
        (("--robust", "trimmed:0.7"), "share is 0.7"),
        (("--robust", "median:2"), "takes no number"),
        (("--align", "activations"), "a server has not"),
        (("--align", "weight"), "did you mean 'weights'"),
        (("--neurons", "--align"), "--neurons keeps units whole"),
        (("--baseline", "fedavg"), "unknown baseline"),
        (("--baseline", "feddst", "--align"), "so --align has no use"),
        (("--noise", 1), "give clip= too"),
        (("--resume",), "--resume needs --state DIR"),
        (("--topology", "ring", "--neurons"), "--topology ring has none"),
        (("--topology", "ring", "--engine", "flower"), "--topology ring has no server"),
        (("--topology", "ring", "--fraction", 0.5), "are of a server"),
        (("--exchanges", 2), "are between neighbours"),
        (("--topology", "ring", "--exchanges", 0), "exchanges is 0"),
        (("--lr", 1e12), "diverged in round 0"),
        (("--data", "fashion"), "fashion"),
    ],
)
def test_bad_input_ends_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[object, ...], sentence: str
) -> None:
    out = tmp_path / "g.safetensors"
    assert sentence in failure(capsys, *SMALL, "--out", out, *options)
    assert not out.exists()


@pytest.mark.skipif(importlib.util.find_spec("flwr") is not None, reason="Flower is installed here")
def test_an_engine_that_is_not_installed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = failure(capsys, *SMALL, "--engine", "flower", "--out", tmp_path / "g.safetensors")
    assert "pip install 'regraft[federated]'" in said
