"""The growth study at preset smoke: what starts equal, what is replaced, claims, report."""

import pytest

from regraft import data
from regraft.report.schema import check
from regraft.studies.claims import Number
from regraft.studies.papers import growth, growth_published
from regraft.studies.papers.growth import RANDOM, STUDY
from regraft.studies.papers.growth_published import BASIC, EPOCH, LINES, STATIC, STEP, line
from regraft.studies.study import Rows, in_order
from regraft.studies.verdicts import verdicts


def test_smoke_reaches_the_report(rows: Rows) -> None:
    results = check(STUDY.report(rows))
    assert rows.missing == 0
    assert "points beside one whose topology does not change" in results["summary"]
    assert [f["kind"] for f in results["figures"]] == ["boxes", "bars", "lines", "bars"]
    assert len(results["tables"][0]["rows"]) == len(growth.FEW) + 2
    assert len(verdicts(STUDY, rows)) == len(STUDY.claims)


def test_each_line_finds_its_own_rows(rows: Rows) -> None:
    found = [growth.rows_of(rows, each).column("cell") for each in (*LINES, RANDOM)]
    assert sorted(cell for cells in found for cell in cells) == sorted(rows.column("cell"))


def test_an_update_each_step_replaces_more_than_one_each_epoch(rows: Rows) -> None:
    steps, epochs = (growth.rows_of(rows, line(t, "exact", 0.01)).rows[0] for t in ("3.1", "3.3"))
    assert steps["dropped"] > epochs["dropped"] > 0
    assert steps["ever_active"] > epochs["ever_active"] > steps["density"]
    assert growth.rows_of(rows, STATIC).rows[0]["dropped"] == 0


def test_claims_that_smoke_cannot_measure_are_those_of_lines_it_leaves_out(rows: Rows) -> None:
    empty = {c.text.split(",")[1] for c in STUDY.claims if isinstance(c, Number) and not c.measure(rows)}
    assert {" faiss .15", " LSH 8 bits"} <= empty
    assert " static" not in empty


def test_paper_runs_every_line_of_the_thesis_once() -> None:
    settings = STUDY.presets["paper"].settings
    made = in_order(STUDY.cells(settings))
    assert len(made) == len(LINES) + 1  # and random growth
    assert {c.config["growth"].get("every") for c in made} == {None, 1, 196}
    assert {c.config["density"] for c in made} == {1.0, 0.2, 0.1}


def test_published_tables_are_whole() -> None:
    assert [sum(each.table == t for each in LINES) for t in ("3.1", "3.2", "3.3", "3.4", "3.5")] == [
        11, 9, 7, 6, 9
    ]  # fmt: skip
    assert len({each.name + str(each.level) for each in LINES}) == len(LINES)
    assert BASIC.name == "dense"
    assert line("3.4", "lsh", 0.05, 8.0).hours == 17.17
    assert line("3.2", "faiss", 0.05, 0.2).accuracy == 67.59
    assert {each.every for each in LINES} == {STEP, EPOCH}
    assert growth_published.line("3.1", "exact", 0.1).metric == "abs"


def test_images_shrink_to_means_of_squares() -> None:
    digits = data.load("digits", per_class=2, test_per_class=2)
    small = growth.shrunk(digits, 4)
    assert small.input_shape == (1, 4, 4)
    assert small.train.x.mean() == pytest.approx(float(digits.train.x.mean()), abs=1e-6)
    assert growth.shrunk(digits, None) is digits
