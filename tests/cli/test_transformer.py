"""From a text to a merged transformer, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from regraft import checkpoint, graph
from regraft.cli import main
from regraft.layers import sparse_layers

TEXT = "text:context=16,characters=6000"


def call(*args: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in args])
    return int(stopped.value.code or 0)


def test_two_halves_of_a_text_become_one_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / f"{k}.safetensors" for k in (1, 2)]
    for k, file in enumerate(files, 1):
        options = ("--density", "0.3", "--optimizer", "adam", "--epochs", "1", "--seed", k, "--out", file)
        assert call("train", "--data", f"{TEXT},part={k}/2", "--model", "gpt:1-16-2", *options) == 0
    assert "bits per character" in capsys.readouterr().out
    merged = tmp_path / "merged.safetensors"
    assert call("merge", *files, "--weights", "average", "--align", "weights", "--out", merged) == 0
    capsys.readouterr()
    assert call("evaluate", merged, "--data", TEXT, "--json", "-") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["bits"] == pytest.approx(figures["loss"] / 0.693147, rel=1e-4)
    assert 0 < figures["accuracy"] < 1
    model = checkpoint.load(merged)
    assert len(sparse_layers(model)) == 6
    assert len(graph.trace(model).bundles) == 3


def test_a_text_of_ones_own_is_pruned_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    book, out = tmp_path / "book.txt", tmp_path / "ticket.safetensors"
    book.write_text("the cat sat on the mat and the dog sat on the log\n" * 40, encoding="utf-8")
    options = ("--model", "gpt:1-16-2", "--score", "snip", "--density", "0.2", "--out", out)
    assert call("prune", "--data", f"{book}:context=12", *options) == 0
    assert call("inspect", out) == 0
    assert "DenseLinear" in capsys.readouterr().out
    model = checkpoint.load(out)
    kept = sum(layer.weight.nnz for layer in sparse_layers(model).values())
    assert kept == round(0.2 * sum(layer.weight.size for layer in sparse_layers(model).values()))
    assert bool(model(torch.zeros(1, 12)).isfinite().all())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--data", TEXT, "--model", "mlp"), "take gpt, the model for texts"),
        (("--data", "digits", "--model", "gpt"), "or the data set text"),
        (("--data", TEXT, "--model", "gpt", "--per-class", "5"), "rows of characters"),
        (("--data", "text:contekst=3", "--model", "gpt"), "'context'"),
    ],
)
def test_refusals(
    options: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("train", *options, "--out", tmp_path / "x.safetensors") == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "x.safetensors").exists()
