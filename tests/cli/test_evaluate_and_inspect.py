"""``regraft evaluate`` and ``regraft inspect``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import regraft
from regraft import data, measure, models, sparsify
from regraft.cli import main


def call(*args: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in args])
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network trained on three classes of the digits."""
    out = tmp_path_factory.mktemp("trained") / "n.safetensors"
    assert call(
        "train", "--model", "mlp:in-24-classes", "--classes", "3,5,7", "--per-class", 30, "--batch-size", 20,
        "--epochs", 3, "--density", 0.2, "--out", out,
    ) == 0  # fmt: skip
    return out


def figures_of(capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, object]:
    capsys.readouterr()
    assert call(*args, "--json", "-") == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_the_samples_are_those_of_the_training(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = data.load("digits", classes=[3, 5, 7], per_class=30)
    expected = measure.evaluate(regraft.load(trained), own.test)
    for args in ((), ("--data", "digits"), ("--data", "Digits")):
        figures = figures_of(capsys, "evaluate", trained, *args)
        assert figures["accuracy"] == expected["accuracy"]
        assert figures["n"] == len(own.test)
        assert figures["loss"] == pytest.approx(expected["loss"])


def test_options_override_those_of_the_training(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = figures_of(capsys, "evaluate", trained, "--test-per-class", 4, "--loss", "mse")
    assert (figures["n"], figures["loss_function"]) == (12, "mse")


def test_accuracy_of_each_class(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = figures_of(capsys, "evaluate", trained, "--test-per-class", 10, "--per-class-accuracy")
    each = figures["per_class"]
    assert isinstance(each, dict)
    assert list(each) == ["3", "5", "7"]
    assert figures["accuracy"] == pytest.approx(sum(each.values()) / 3)
    assert call("evaluate", trained, "--per-class-accuracy") == 0
    assert "accuracy" in capsys.readouterr().out


def test_evaluate_refusals(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = tmp_path / "plain.safetensors"
    regraft.save(sparsify(models.build("mlp:64-10"), density=0.5), plain)
    own = tmp_path / "own.safetensors"
    regraft.save(sparsify(nn.Sequential(nn.Linear(64, 10)), density=0.5), own)
    (tmp_path / "broken").write_bytes(b"nothing")
    for args, says in (
        ((tmp_path / "none",), "cannot open"),
        ((tmp_path / "broken",), "is not a network file"),
        ((plain,), "pass --data NAME"),
        ((plain, "--data", "digit"), "did you mean 'digits'"),
        ((plain, "--data", "iris"), "does not take samples of shape (4,)"),
        ((trained, "--data", "breast-cancer"), "does not take samples"),
        ((trained, "--classes", "0,1,2,3"), "has 3 outputs, but the data has the label 3"),
        ((own, "--data", "digits"), "regraft cannot build"),
        ((plain, "--data", "digits", "--loss", "hinge"), "unknown loss"),
        ((plain, "--data", "digits", "--json", tmp_path / "no" / "f"), "create it first"),
    ):
        capsys.readouterr()
        assert call("evaluate", *args) == 2, args
        printed = capsys.readouterr()
        assert says in printed.err, printed.err
        assert len(printed.err.strip().splitlines()) == 1


def test_inspect(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = figures_of(capsys, "inspect", trained)
    expected = measure.inspect(regraft.load(trained))
    assert {k: figures[k] for k in expected} == expected
    assert figures["bytes_on_disk"] == trained.stat().st_size
    assert figures["provenance"]["options"]["density"] == 0.2
    assert call("inspect", trained) == 0
    printed = capsys.readouterr().out
    for part in ("fc1", "24x64", "compression x", "seed 0", "name digits", "regraft train", "FLOPs"):
        assert part in printed


def test_inspect_a_model_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    model.add_module("inner", nn.Sequential(nn.Linear(3, 2, bias=False)))
    sparsify(model, density=0.5, exclude=["3"], generator=torch.Generator().manual_seed(0))
    regraft.save(model, tmp_path / "n.safetensors")
    figures = figures_of(capsys, "inspect", tmp_path / "n.safetensors")
    expected = measure.inspect(model)
    for name in ("parameters", "dense_parameters", "bytes", "compression"):
        assert figures[name] == expected[name], name
    layers = figures["layers"]
    assert isinstance(layers, list)
    assert [layer["nnz"] for layer in layers] == [model[0].weight.nnz, model.inner[0].weight.nnz]
    assert figures["flops"] is None
    assert call("inspect", tmp_path / "n.safetensors") == 0
    assert "inner.0" in capsys.readouterr().out


def test_inspect_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("inspect", tmp_path / "none") == 2
    assert "cannot open" in capsys.readouterr().err
