"""``regraft train`` from options to a file, and what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
import pytest
import torch

import regraft
from regraft import checkpoint, data, measure
from regraft.cli import main
from regraft.cli.train import command
from regraft.layers import SparseLayer
from regraft.train import checkpoints

SMALL = ("--model", "mlp:in-24-classes", "--per-class", "20", "--test-per-class", "10", "--batch-size", "20")


def call(*args: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in args])
    return int(stopped.value.code or 0)


def train(out: Path, *args: object) -> int:
    return call("train", *SMALL, "--epochs", 3, "--out", out, *args)


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """The one sentence of a refusal, after checking that it is one and that nothing was written."""
    assert call("train", *args) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.strip().splitlines()) == 1, printed.err
    return printed.err


def test_defaults_work_on_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.safetensors"
    assert call("train", "--epochs", 2, "--out", out) == 0
    printed = capsys.readouterr()
    assert "19,722 parameters instead of 85,002 (compression x4.3)" in printed.out
    assert "test accuracy 0." in printed.out
    assert printed.err == ""  # no progress bar where there is no terminal
    model = regraft.load(out)
    assert model.spec["sizes"] == [64, 256, 256, 10]


def test_figures_are_those_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.safetensors"
    assert train(out, "--json", "-", "--density", 0.3, "--rate", "exd:interest=0.1") == 0
    printed = capsys.readouterr()
    figures = json.loads(printed.out)
    assert figures["step"].split(":")[0] in ("fused", "ordinary")
    model = regraft.load(out)
    digits = data.load("digits", per_class=20, test_per_class=10)
    found = measure.evaluate(model, digits.test)
    assert figures["final"]["test_accuracy"] == found["accuracy"]
    assert figures["final"]["test_loss"] == pytest.approx(found["loss"])
    assert figures["network"]["weights"] == regraft.Topology.of(model).nnz == round(0.3 * (64 * 24 + 240))
    assert figures["bytes_on_disk"] == out.stat().st_size
    assert [row["epoch"] for row in figures["history"]] == [1, 2, 3]
    assert [row.get("rate") for row in figures["history"]] == pytest.approx([0.3, 0.27, None])
    assert figures["options"]["density"] == 0.3
    header = checkpoint.read_header(out)
    assert header.provenance["options"] == figures["options"]
    assert header.provenance["data"]["name"] == "digits"


def test_json_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "a", "--json", tmp_path / "figures.json") == 0
    assert json.loads((tmp_path / "figures.json").read_text())["command"] == "train"
    assert "accuracy" in capsys.readouterr().out


def test_the_same_command_gives_the_same_file(tmp_path: Path) -> None:
    for name in "ab":
        torch.manual_seed(ord(name))
        assert train(tmp_path / name, "--dropout", 0.2, "--optimizer", "adam") == 0
    assert train(tmp_path / "c", "--dropout", 0.2, "--optimizer", "adam", "--seed", 1) == 0
    a, b, c = ((tmp_path / n).read_bytes() for n in "abc")
    assert a == b
    assert a != c


def test_options_reach_the_training(tmp_path: Path) -> None:
    def options(*args: object) -> dict[str, Any]:
        assert train(tmp_path / "n", *args) == 0
        found: dict[str, Any] = checkpoint.read_header(tmp_path / "n").provenance["options"]
        return found

    assert options("--zeta", 0.1, "--evolve", "set-magnitude", "--grow-init", "fan_in")["zeta"] == 0.1
    assert options("--lr", 0.5, "--momentum", 0, "--weight-decay", 1e-4)["momentum"] == 0
    assert options("--optimizer", "adamw")["lr"] == 0.001
    assert options("--batch-size", "full")["batch_size"] is None
    assert options("--lr-schedule", "step:step_size=1")["lr_schedule"] == "step:step_size=1"
    assert options("--loss", "mse", "--activation", "sigmoid", "--init", "torch")["loss"] == "mse"
    assert options("--evolve-every", 4, "--normalise-rows")["normalise_rows"] is True
    assert options("--exclude", "fc2", "--allocate", "uniform", "--density", 0.5)["exclude"] == ["fc2"]
    assert options("--evolve", "none", "--threads", 1)["evolve"] == "none"


def test_dense_and_partly_dense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "dense", "--dense") == 0
    assert "1,810 parameters instead of 1,810 (compression x1.0)" in capsys.readouterr().out
    assert not any(isinstance(m, SparseLayer) for m in regraft.load(tmp_path / "dense").modules())
    assert train(tmp_path / "partly", "--density", 0.5, "--exclude", "fc2") == 0
    model = regraft.load(tmp_path / "partly")
    assert isinstance(model.fc1, SparseLayer)
    assert isinstance(model.fc2, torch.nn.Linear)


def test_classes(tmp_path: Path) -> None:
    out = tmp_path / "n"
    assert train(out, "--classes", "3,5,7") == 0
    assert regraft.load(out).spec["sizes"][-1] == 3
    assert checkpoint.read_header(out).provenance["data"]["class_names"] == ["3", "5", "7"]


def test_stopping_early(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(
        tmp_path / "n", "--epochs", 30, "--early-stop-accuracy", 0.3, "--early-stop-extra", 1, "--json", "-"
    ) == 0  # fmt: skip
    figures = json.loads(capsys.readouterr().out)
    assert "passed 0.3" in figures["stopped"]
    passed = next(row["epoch"] for row in figures["history"] if row["test_accuracy"] > 0.3)
    assert len(figures["history"]) == passed + 1


def test_long_trainings_print_a_short_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "n", "--epochs", 45, "--batch-size", "full") == 0
    lines = capsys.readouterr().out.splitlines()
    epochs = [int(line.split()[0]) for line in lines if line[:1].isdigit() and "│" in line]
    assert epochs == [*range(3, 46, 3)]


@pytest.mark.parametrize("step", [3, 10, 25])
def test_interrupted_and_resumed(step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--dropout", 0.2, "--optimizer", "adam", "--checkpoint-steps", 2)
    assert train(tmp_path / "whole", *options, "--checkpoint", tmp_path / "1") == 0
    with monkeypatch.context() as patch:
        _interrupt_at(patch, step)
        assert train(tmp_path / "part", *options, "--checkpoint", tmp_path / "2") == 130
    assert not (tmp_path / "part").exists()
    assert train(tmp_path / "part", *options, "--checkpoint", tmp_path / "2", "--resume") == 0
    assert (tmp_path / "part").read_bytes() == (tmp_path / "whole").read_bytes()


def _interrupt_at(patch: pytest.MonkeyPatch, step: int) -> None:
    save = checkpoints.save

    def interrupted(run: Any, path: Any) -> None:
        if run.step >= step:
            raise KeyboardInterrupt
        save(run, path)

    patch.setattr(checkpoints, "save", interrupted)


def test_interruption_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _interrupt_at(monkeypatch, 15)
    assert train(tmp_path / "n", "--checkpoint", tmp_path / "c") == 130
    assert "--resume" in capsys.readouterr().err


def test_resuming_without_a_checkpoint_starts_anew(tmp_path: Path) -> None:
    assert train(tmp_path / "a", "--checkpoint", tmp_path / "c", "--resume") == 0
    assert train(tmp_path / "b") == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_checkpoints_of_other_trainings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "c"
    assert train(tmp_path / "a", "--checkpoint", folder) == 0
    capsys.readouterr()
    begin = (*SMALL, "--epochs", 3, "--out", tmp_path / "b", "--checkpoint", folder)
    assert "pass --resume to go on" in refused(capsys, *begin)
    for change, says in (
        (("--lr", 0.5), "options.lr = 0.01, but now it is 0.5"),
        (("--seed", 2), "seed = 0, but now it is 2"),
        (("--data-seed", 2), "data_choices.seed = 0, but now it is 2"),
        (("--dropout", 0.5), "options.dropout = 0.0, but now it is 0.5"),
    ):
        assert call("train", *begin, "--resume", *change) == 2
        assert says in capsys.readouterr().err
    (folder / checkpoints.FILE).write_bytes(b"nonsense")
    assert call("train", *begin, "--resume") == 2
    assert "training.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--data", "digit"), "did you mean 'digits'"),
        (("--model", "mpl:3-2"), "did you mean 'mlp'"),
        (("--model", "mlp:100-50-10"), "a sample of the data has 64 values (1x8x8)"),
        (("--model", "mlp:64-x-10"), "the size 'x'"),
        (("--model", "mlp:64-5"), "the data has 10 classes"),
        (("--model", "lenet-5"), "28x28 or 32x32"),
        (("--density", "1.5"), "density is 1.5"),
        (("--density", "0.1", "--epsilon", "3"), "density and epsilon exclude each other"),
        (("--epsilon", "-1"), "epsilon is -1.0"),
        (("--density", "0.00001"), "would get no connection"),
        (("--dense", "--evolve", "set"), "no topology to evolve"),
        (("--dense", "--normalise-rows"), "the network is dense"),
        (("--allocate", "unifrom", "--density", "0.1"), "did you mean 'uniform'"),
        (("--exclude", "nope*"), "matches no module"),
        (("--evolve", "sett"), "did you mean 'set'"),
        (("--rate", "exdd"), "did you mean 'exd'"),
        (("--rate", "exd:foo=1"), "known names: 'interest', 'start'"),
        (("--zeta", "3"), "zeta is 3.0"),
        (("--evolve-every", "often"), "'50epochs'"),
        (("--grow-init", "ones"), "unknown initial value"),
        (("--dropout", "1"), "dropout is 1.0"),
        (("--activation", "rely"), "did you mean 'relu'"),
        (("--init", "hee"), "unknown init"),
        (("--sparse-init", "none"), "'keep' or 'rescale'"),
        (("--epochs", "0"), "epochs is 0"),
        (("--batch-size", "many"), "a whole number, or 'full'"),
        (("--batch-size", "0"), "batch_size is 0"),
        (("--optimizer", "sdg"), "did you mean 'sgd'"),
        (("--lr", "-1"), "learning rate is -1.0"),
        (("--optimizer", "adam", "--momentum", "0.9"), "not with adam"),
        (("--lr-schedule", "cosin"), "did you mean 'cosine'"),
        (("--loss", "crossentropy"), "did you mean 'cross-entropy'"),
        (("--label-smoothing", "0.1", "--loss", "mse"), "not with 'mse'"),
        (("--restore-best",), "give a patience too"),
        (("--early-stop-patience", "0"), "patience is 0"),
        (("--early-stop-accuracy", "85"), "85 %"),
        (("--seed", "-1"), "seed is -1"),
        (("--classes", "0,77"), "class 77"),
        (("--per-class", "100000"), "100000"),
        (("--resume",), "--resume needs --checkpoint"),
        (("--threads", "0"), "--threads is 0"),
        (("--device", "gpu"), "--device 'gpu'"),
        (("--out", "no/such/folder/n"), "create it first"),
        (("--json", "no/such/folder/n"), "create it first"),
    ],
)
def test_refusals(
    args: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert says in refused(capsys, "--epochs", 1, "--out", "n", *args)
    assert list(tmp_path.iterdir()) == []


def test_divergence_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "c"
    assert train(tmp_path / "n", "--lr", "1e9", "--checkpoint", folder) == 2
    assert "training diverged" in capsys.readouterr().err
    for kept in folder.iterdir():
        _, state = checkpoints.read(kept)
        assert all(torch.isfinite(t).all() for t in state["model"].values())
    assert not (tmp_path / "n").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_folders_without_permission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert "no permission" in refused(capsys, "--out", locked / "n")
    assert "no permission" in refused(capsys, "--out", tmp_path / "n", "--checkpoint", locked)


def test_help_explains_every_option() -> None:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            shown = parameter.default is not None and parameter.show_default is not False
            flag = parameter.is_flag or parameter.required or parameter.multiple
            optional = parameter.name in {"json_path", "checkpoint_dir", "tensorboard", "checkpoint_steps"}
            density = parameter.name == "density"
            assert shown or flag or optional or density or "[default:" in parameter.help, parameter.name


def test_tensorboard_that_is_not_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    says = refused(capsys, "--out", tmp_path / "n", "--tensorboard", tmp_path / "t")
    assert "pip install 'regraft[tensorboard]'" in says
