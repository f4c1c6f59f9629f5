"""``regraft demo`` from end to end, small."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from regraft import checkpoint
from regraft.cli import main

SMALL = ["demo", "--networks", "2", "--epochs", "2", "--model", "mlp:in-16-classes", "--per-class", "20",
         "--test-per-class", "10", "--batch-size", "20"]  # fmt: skip


def run(*args: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*SMALL, *args])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_it_writes_a_report_results_and_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs" / "demo"
    assert run("--out", str(out)) == 0
    assert sorted(p.name for p in out.iterdir()) == [
        "merged.safetensors", "report.html", "results.json", "seed-0.safetensors", "seed-1.safetensors",
    ]  # fmt: skip
    printed = capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    for text in (
        "Parents",
        "NNSTD",
        "Test accuracy: all, resparsified",
        "Two networks were trained on digits",
    ):
        assert text in printed
    assert f"{results['parents_mean_accuracy']:.4f}" in printed
    assert f"{results['best']['accuracy']:.4f}" in printed
    assert (
        checkpoint.load(out / "merged.safetensors").spec == checkpoint.load(out / "seed-0.safetensors").spec
    )


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path: Path) -> None:
    outs = [tmp_path / name for name in ("a", "b", "c")]
    for out, seed in zip(outs, ("0", "0", "7"), strict=True):
        assert run("--out", str(out), "--seed", seed) == 0
    a, b, c = ({p.name: p.read_bytes() for p in out.iterdir()} for out in outs)
    assert a == b
    assert a["merged.safetensors"] != c["merged.safetensors"]
    assert {"seed-7.safetensors", "seed-8.safetensors"} <= set(c)


def test_json_on_standard_output_is_nothing_but_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--out", str(tmp_path), "--json", "-") == 0
    captured = capsys.readouterr()
    figures = json.loads(captured.out)
    assert figures == json.loads((tmp_path / "results.json").read_text())
    assert figures["options"]["epochs"] == 2
    assert captured.err == ""


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--density", "1.5"], "density is 1.5, but must be in (0, 1]"),
        (["--data", "digit"], "did you mean 'digits'?"),
        (["--model", "mlp:63-classes"], "63 inputs"),
        (["--activation", "sigmoi"], "did you mean 'sigmoid'"),
        (["--networks", "1"], "--networks"),
        (["--json", "/nowhere/figures.json"], "/nowhere"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], message: str
) -> None:
    assert run("--out", str(tmp_path / "out"), *args) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert not list((tmp_path / "out").glob("*"))


def test_an_output_that_is_a_file_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert run("--out", str(tmp_path / "file")) == 2
    assert run("--out", str(tmp_path / "file" / "inner")) == 2
    assert (tmp_path / "file").read_text() == "mine"


def test_without_matplotlib_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run("--out", str(tmp_path / "out")) == 2
    assert "pip install 'regraft[report]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
