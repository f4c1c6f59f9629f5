"""``regraft study query`` and ``regraft study export``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regraft.cli import main
from regraft.studies.catalogue import named
from regraft.studies.folder import Folder
from regraft.studies.run import run as run_study

STUDY = """
from regraft.studies import Cell, Outcome, Preset, Study, step


@step
def score(work):
    rows = [{"method": m, "value": 10 * work.config["seed"] + i} for i, m in enumerate(["a", "b"])]
    return Outcome(rows=rows, epochs=[{"epoch": e, "loss": 1 / e} for e in (1, 2)])


def cells(settings):
    return [Cell(score, {"seed": s}) for s in range(settings["seeds"])]


MINE = Study("my-own", "Mine", "nothing", "A study.", cells, {"small": Preset({"seeds": 3}, "1 s")})
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a user's study, done, without its database."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(STUDY)
    run_study(named("mine.py"), "small", Folder("runs/studies", create=True), executor="inline")
    return tmp_path


def run(*args: str) -> None:
    try:
        main(["study", *args])
    except SystemExit as end:
        assert end.code == 0, end.code  # noqa: PT017


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(["study", *args])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("regraft: ")
    assert said.count("\n") == 1
    return said


def test_a_study_is_asked(place, capsys):
    run("query", "mine.py", "SELECT method, avg(value) AS mean FROM rows GROUP BY 1")
    said = [word for word in capsys.readouterr().out.split() if word.isalnum()]
    assert said[:2] == ["method", "mean"]
    assert said[-4:] == ["a", "10", "b", "11"]
    # its own name and the tables of all studies work too
    run("query", "SELECT count(*) AS n FROM my_own")
    assert capsys.readouterr().out.split()[-1] == "6"


def test_answers_go_into_files_and_pipes(place, capsys):
    asked = "SELECT seed, value FROM rows WHERE method = 'a' ORDER BY 1"
    run("query", "mine.py", asked, "--csv", "a.csv")
    assert Path("a.csv").read_text().split() == ["seed,value", "0,0", "1,10", "2,20"]
    assert capsys.readouterr().out == ""
    run("query", "mine.py", asked, "--csv", "-")
    assert capsys.readouterr().out == "seed,value\n0,0\n1,10\n2,20\n"
    run("query", "mine.py", asked, "--json", "-")
    assert json.loads(capsys.readouterr().out) == {
        "columns": ["seed", "value"],
        "rows": [[0, 0], [1, 10], [2, 20]],
    }


def test_long_answers_are_cut(place, capsys):
    run("query", "mine.py", "SELECT value FROM rows", "--rows", "2")
    assert "and 4 more rows" in capsys.readouterr().out


def test_without_sql_it_shows_what_there_is(place, capsys):
    run("query", "mine.py")
    said = capsys.readouterr().out
    assert "my_own" in said
    assert "epochs" not in said
    run("query")
    said = capsys.readouterr().out
    for part in ("my_own", "cells", "epochs", "rows_own_mine_score", "For example:"):
        assert part in said
    run("query", "--json", "-")
    tables = json.loads(capsys.readouterr().out)["tables"]
    assert tables[0]["name"] == "my_own"
    assert tables[0]["rows"] == 6


def test_the_examples_that_it_shows_work(place, capsys):
    run("query", "mine.py", "SELECT 1")
    capsys.readouterr()
    run("query")
    said = capsys.readouterr().out
    examples = [line.split("'")[1] for line in said.splitlines() if line.startswith("  regraft study query")]
    assert len(examples) == 3
    for sql in examples:
        run("query", sql)
        assert len(capsys.readouterr().out.splitlines()) > 2


def test_the_database_is_brought_up_to_date(place, capsys):
    run("query", "mine.py", "SELECT count(*) FROM rows")
    more = STUDY.replace('"seeds": 3', '"seeds": 5')
    (place / "mine.py").write_text(more)
    run_study(named("mine.py"), "small", Folder("runs/studies"), executor="inline")
    capsys.readouterr()
    run("query", "mine.py", "SELECT count(*) AS n FROM rows")
    assert capsys.readouterr().out.split()[-1] == "10"
    Path("runs/studies/results.sqlite").unlink()
    run("query", "SELECT count(*) AS n FROM cells")  # made anew, of the studies that regraft brings
    assert capsys.readouterr().out.split()[-1] == "0"


def test_bad_queries_end_in_a_sentence(place, capsys):
    assert "only read" in refused(capsys, "query", "mine.py", "DELETE FROM cells")
    assert "did you mean 'value'" in refused(capsys, "query", "mine.py", "SELECT vale FROM rows")
    assert "did you mean 'my_own'" in refused(capsys, "query", "SELECT 1 FROM my_wn")
    assert "at most a study's name and one query" in refused(capsys, "query", "a", "SELECT", "1")
    assert "there is no study 'none'" in refused(capsys, "query", "none", "SELECT 1")
    assert "no results of studies" in refused(capsys, "query", "--folder", "elsewhere")
    assert "does not exist" in refused(capsys, "query", "mine.py", "SELECT 1", "--csv", "none/a.csv")
    Folder("empty", create=True)
    assert "run `regraft study run my-own" in refused(capsys, "query", "mine.py", "--folder", "empty")


def test_a_damaged_database_is_told_and_made_anew(place, capsys):
    Path("runs/studies/results.sqlite").write_bytes(b"damaged " * 999)
    with pytest.raises(SystemExit):
        main(["study", "query", "mine.py", "SELECT 1"])
    assert "delete it; it is made anew" in capsys.readouterr().err.replace("\n", " ")
    Path("runs/studies/results.sqlite").unlink()
    run("query", "mine.py", "SELECT count(*) AS n FROM rows")
    assert capsys.readouterr().out.split()[-1] == "6"


def test_export_writes_files(place, capsys):
    run("export", "mine.py", "--out", "rows.csv")
    assert "wrote 6 rows of my-own at preset small to rows.csv" in capsys.readouterr().out
    assert Path("rows.csv").read_text().splitlines()[0] == "cell,step,seed,method,value"
    run("export", "mine.py", "--epochs", "--format", "json", "--out", "epochs.json")
    assert len(json.loads(Path("epochs.json").read_text())["epochs"]) == 6
    pytest.importorskip("tensorboard")
    run("export", "mine.py", "--format", "tensorboard", "--out", "board")
    assert "wrote 3 trainings" in capsys.readouterr().out
    assert len(list(Path("board").rglob("events.*"))) == 3


def test_bad_exports_end_in_a_sentence(place, capsys):
    assert "did you mean 'csv'" in refused(capsys, "export", "mine.py", "--format", "cvs", "--out", "x")
    assert "has no preset 'large'" in refused(capsys, "export", "mine.py", "--preset", "large", "--out", "x")
    assert "name a folder" in refused(
        capsys, "export", "mine.py", "--format", "tensorboard", "--out", "mine.py"
    )
    assert "does not exist" in refused(capsys, "export", "mine.py", "--out", "none/x.csv")
