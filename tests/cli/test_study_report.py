"""``regraft study report``: pages, tables in the terminal, JSON, Markdown, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from regraft.cli import main
from regraft.studies.catalogue import named
from regraft.studies.folder import Folder
from regraft.studies.run import run as run_study

FILE = """
from regraft.studies import Cell, Number, Order, Outcome, Preset, Study, step


@step
def score(work):
    return Outcome(rows=[{"value": work.config["x"] + (10.0 if work.config["good"] else 0.0)}])


def cells(settings):
    return [Cell(score, {"x": x, "good": g}) for g in (True, False) for x in range(settings["n"])]


def values(good):
    return lambda rows: rows.where(good=good).column("value")


def study(name):
    return Study(
        name=name, title="Good against bad", reproduces="thesis 9, table 1", about="Is good better?",
        cells=cells, presets={"small": Preset({"n": 5}, "1 s")},
        claims=[
            Order("good beats [bad]", "table 1", values(True), values(False)),
            Order("bad beats good", "table 2", values(False), values(True)),
        ],
        report=lambda rows: {"figures": [{
            "kind": "lines", "title": "Values", "caption": "Each.", "x": "x", "y": "value",
            "series": [{"name": "good", "x": [0.0, 1.0], "y": values(True)(rows)[:2]}],
        }]},
    )


ONE = study("good-bad")
"""


def call(*args: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["study", "report", *(str(a) for a in args)])
    return int(stopped.value.code or 0)


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    capsys.readouterr()
    assert call(*args) == 2
    err = capsys.readouterr().err
    assert len(err.strip().splitlines()) == 1, err
    return err


@pytest.fixture
def study(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    run_study(named(str(path)), "small", Folder(tmp_path / "runs", create=True), executor="inline")
    return str(path)


@pytest.fixture
def where(tmp_path: Path) -> tuple[object, ...]:
    return ("--folder", tmp_path / "runs", "--out", tmp_path / "out")


def test_pages_and_a_table(
    study: str,
    where: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert call(study, *where, "--json", tmp_path / "figures.json") == 0
    text = capsys.readouterr().out
    assert "good beats [bad]" in text
    assert "+10 ± 0 % (5)" in text
    assert "not reproduced: bad beats good: " in text
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["good-bad.html", "index.html"]
    index = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert 'href="good-bad.html"' in index
    page = (tmp_path / "out" / "good-bad.html").read_text("utf-8")
    assert 'class="mark yes">reproduced' in page
    assert f"regraft study run {study} --preset small --folder {tmp_path / 'runs'}" in page
    found = json.loads((tmp_path / "figures.json").read_text("utf-8"))
    assert found["studies"][0]["counts"] == {"reproduced": 1, "not reproduced": 1, "out of scale": 0}
    assert found["studies"][0]["cells"] == {"all": 10, "done": 10, "missing": 0, "failed": 0}
    assert found["studies"][0]["page"] == str(tmp_path / "out" / "good-bad.html")
    before = page
    assert call(study, *where, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["studies"] == found["studies"]
    assert (tmp_path / "out" / "good-bad.html").read_text("utf-8") == before


def test_markdown(study: str, where: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(study, *where, "--markdown") == 0
    text = capsys.readouterr().out
    assert text.startswith("`good-bad`: Good against bad\n\n| Claim | Source |")
    assert "| good beats [bad] | table 1 | better |" in text
    assert not (tmp_path / "out").exists()


def test_all_studies_and_those_without_results_or_preset(
    study: str,
    where: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = tmp_path / "other.py"
    other.write_text(
        FILE.replace("study(\"good-bad\")", "study('new')").replace('{"x": x', '{"new": 1, "x": x')
    )  # fmt: skip
    lacks = tmp_path / "lacks.py"
    lacks.write_text(FILE.replace('"small"', '"paper"').replace("good-bad", "lacks"))
    monkeypatch.setattr("regraft.cli.study.report.names", lambda: [study, str(other), str(lacks)])
    assert call("--all", *where) == 0
    assert "No results yet" in capsys.readouterr().out
    index = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "No results yet: run `regraft study run" in index
    assert "Without a preset &#39;small&#39;: lacks." in index
    assert not (tmp_path / "out" / "new.html").exists()
    text = refused(capsys, other, *where)
    assert (
        f"no cell of 'new' at preset 'small' is done in '{tmp_path / 'runs'}': run `regraft study run" in text
    )
    assert "has no preset 'small'" in refused(capsys, lacks, *where)


def test_part_of_the_cells(
    study: str, where: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Folder(tmp_path / "runs")
    for key in sorted(folder.done())[:4]:
        folder.cell(key).rename(folder.path / "parts" / key)
    assert call(study, *where) == 0
    assert "partial: 6 of 10 cells are done, 4 are missing" in " ".join(capsys.readouterr().out.split())
    assert "partial" in (tmp_path / "out" / "good-bad.html").read_text("utf-8")


def test_bad_input(study: str, where: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "which study?" in refused(capsys, *where)
    assert "no study 'gates-sin'" in refused(capsys, "gates-sin", *where)
    assert "no results of studies in" in refused(capsys, study, "--folder", tmp_path / "gone")
    assert "has no preset 'smal': did you mean 'small'" in refused(capsys, study, *where, "--preset", "smal")
    assert "does not exist" in refused(capsys, study, *where, "--json", tmp_path / "gone" / "x.json")
    assert "name a file for --json" in refused(capsys, study, *where, "--markdown", "--json", "-")
    (tmp_path / "file").write_text("")
    text = refused(capsys, study, *where[:2], "--out", tmp_path / "file" / "inner")
    assert "cannot make the folder" in text
    copy = tmp_path / "copy.py"
    copy.write_text(FILE)
    assert "are both called 'good-bad'" in refused(capsys, study, copy, *where)
