"""The page of a study and the index: what they say of verdicts, cells and what is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regraft import report
from regraft.errors import InputError
from regraft.report import Results
from regraft.studies import Cell, Number, Order, Outcome, Preset, Rows, Study, Work, step
from regraft.studies.folder import Folder
from regraft.studies.publish import Published, index, markdown, page, published
from regraft.studies.publish.words import duration
from regraft.studies.run import run as run_study

SEEDS = 6


@step
def measure(work: Work) -> Outcome:
    """Method "a" has 90 + seed / 10, "b" has 80 + seed / 10."""
    method, seed = work.config["method"], work.config["seed"]
    return Outcome(rows=[{"accuracy": (90.0 if method == "a" else 80.0) + seed / 10 + (seed % 2) / 50}])


def cells(settings: Any) -> list[Cell]:
    return [Cell(measure, {"method": m, "seed": s}) for m in "ab" for s in range(settings["seeds"])]


def samples(method: str) -> Any:
    return lambda rows: rows.where(method=method).column("accuracy")


def own_parts(rows: Rows) -> Results:
    means = [[m[0], found.mean("accuracy")] for m, found in rows.by("method").items()]
    return {
        "summary": f"The better one reaches {max(m[1] for m in means):.1f} %.",
        "facts": [{"label": "Best", "value": "a"}],
        "tables": [{"title": "Means", "columns": ["Method", "Accuracy (%)"], "rows": means}],
        "figures": [{
            "kind": "bars", "title": "Accuracy of both", "caption": "Means.", "y": "Accuracy (%)",
            "groups": [m[0] for m in means], "sets": [{"name": "", "values": [m[1] for m in means]}],
        }],
    }  # fmt: skip


STUDY = Study(
    name="two-methods",
    title="Two <methods>",
    reproduces="thesis 9, table 1",
    about="Is one better than the other?",
    cells=cells,
    presets={
        "smoke": Preset({"seeds": SEEDS}, "1 s", data=("digits",)),
        "paper": Preset({"seeds": 2}, "2 s", comparable=True),
    },
    claims=[
        Order("a is better than b", "table 1", samples("a"), samples("b"), published=12.0),
        Order("b is better than a", "table 2 | left", samples("b"), samples("a")),
        Number("accuracy of a", "table 1", 90.1, 1.0, samples("a")),
    ],
    report=own_parts,
    differs=("Nothing is trained.",),
)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    found = Folder(tmp_path / "results", create=True)
    run_study(STUDY, "smoke", found, executor="inline")
    return found


def of(table_title: str, results: Results) -> report.Table:
    return next(t for t in results["tables"] if t["title"] == table_title)


def test_published_stands_beside_measured_with_a_verdict(folder: Folder) -> None:
    rows = of("Claims", page(published(STUDY, "smoke", folder)))["rows"]
    assert [r[0] for r in rows] == ["a is better than b", "b is better than a", "accuracy of a"]
    assert rows[0][2] == "+12 %"
    assert rows[0][3].startswith("+10 ")
    assert rows[0][3].endswith(f"({SEEDS})")
    assert rows[0][4] == "< 0.001"
    assert [r[5] for r in rows] == [
        {"text": "reproduced", "mark": "yes"}, {"text": "not reproduced", "mark": "no"},
        {"text": "out of scale", "mark": "none"},
    ]  # fmt: skip
    assert rows[2][4] is None  # a number has no p
    assert all(len(r[6]) > 10 for r in rows)


def test_the_page_has_all_that_the_study_says(folder: Folder) -> None:
    found = published(STUDY, "smoke", folder)
    html = report.render(page(found))
    for text in (
        "Two &lt;methods&gt;", "thesis 9, table 1", "Is one better than the other?",
        "The better one reaches 90.3 %",
        "Nothing is trained.", "Accuracy of both", "Means", "12 of 12", "digits", 'href="index.html"',
        "--preset smoke --folder", f"regraft study run {STUDY.name}", found.versions["torch"],
    ):  # fmt: skip
        assert text in html, text
    assert "partial" not in html
    assert page(found)["facts"][0] == {"label": "Reproduced", "value": "1", "note": "of 2 that can be judged"}
    assert page(found)["facts"][-1]["label"] == "Best"
    assert html == report.render(page(found))
    assert "up" not in page(found, None)


def test_missing_and_failed_cells_make_it_partial(folder: Folder) -> None:
    several = cells({"seeds": SEEDS})
    for cell in several[-3:]:
        folder.cell(cell.key).rename(folder.path / "parts" / cell.key)
    folder.record_failure(several[-1].key, {"error": "lost"})
    folder.record_failure("0" * 32, {"error": "of another study"})
    found = published(STUDY, "smoke", folder)
    assert (found.done, found.cells, found.failed) == (9, 12, 1)
    notice = page(found)["notice"]
    assert notice.startswith(
        "These results are partial: 9 of 12 cells are done, 3 are missing, 1 of them failed."
    )
    assert "--retry-failed" in notice
    assert notice in report.render(page(found))


def test_a_report_that_stumbles_over_missing_cells_is_left_out(folder: Folder) -> None:
    def stumbles(rows: Rows) -> Results:
        return {"summary": str(rows.where(method="c").rows[0])}

    broken = replace(STUDY, report=stumbles)
    with pytest.raises(InputError, match="the report of the study 'two-methods' failed with IndexError"):
        page(published(broken, "smoke", folder))
    last = cells({"seeds": SEEDS})[-1]
    folder.cell(last.key).rename(folder.path / "parts" / last.key)
    made = page(published(broken, "smoke", folder))
    assert "need more cells than are done" in made["notice"]
    assert made["summary"] == "1 of the 2 claims that can be judged at this preset are reproduced."


def test_a_report_of_the_wrong_form_names_the_study(folder: Folder) -> None:
    wrong = replace(STUDY, report=lambda rows: {"figurs": []})
    with pytest.raises(InputError, match=r"report of the study 'two-methods': .*did you mean 'figures'"):
        page(published(wrong, "smoke", folder))


def test_parts_of_a_study_come_through(folder: Folder) -> None:
    extra: Results = {"remarks": [{"title": "Why", "points": ["So."]}], "configuration": {"own": 1}}
    made = page(published(replace(STUDY, report=lambda rows: extra), "smoke", folder))
    assert [r["title"] for r in made["remarks"]] == ["What differs from the original, and why", "Why"]
    assert made["configuration"]["own"] == 1
    assert made["configuration"]["seeds"] == SEEDS


def test_the_index_leads_to_each_study_and_counts_verdicts(folder: Folder) -> None:
    other = replace(STUDY, name="not-run", cells=lambda s: [Cell(measure, {"method": "c", "seed": 0})])
    several = [published(s, "smoke", folder) for s in (STUDY, other)]
    made = index(several, "smoke", without=["elsewhere"])
    first, second = of("Studies", made)["rows"]
    assert first[0] == {"text": "two-methods", "href": "two-methods.html"}
    assert first[3:] == [1, 1, 1, "12 of 12"]
    assert second[0] == "not-run"
    assert second[-1].startswith("No results yet: run `regraft study run not-run --preset smoke --folder ")
    assert [r[-1]["text"] for r in of("Claims", made)["rows"]] == [
        "reproduced", "not reproduced", "out of scale"
    ]  # fmt: skip
    html = report.render(made)
    assert 'href="two-methods.html"' in html
    assert "1 of 2 studies have results" in html
    assert "Without a preset &#39;smoke&#39;: elsewhere." in html


def test_markdown_is_a_table_of_seven_columns(folder: Folder) -> None:
    text = markdown(published(STUDY, "smoke", folder))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(STUDY.claims)
    assert all(line.replace("\\|", "").count("|") == 8 for line in lines)
    assert "table 2 \\| left" in text
    assert "Preset smoke: 12 cells, 12 rows." in text


def test_a_study_without_claims_has_no_verdicts(folder: Folder) -> None:
    made = page(published(replace(STUDY, claims=()), "smoke", folder))
    assert [t["title"] for t in made["tables"]] == ["Means", "Work"]
    assert [f["label"] for f in made["facts"]] == ["Cells done", "Best"]


def test_a_page_does_not_overwrite_the_index() -> None:
    found = Published(replace(STUDY, name="index"), Rows([], [], "smoke"))
    assert found.file == "study-index.html"


def test_a_large_study_makes_a_small_page() -> None:
    """The page holds what is aggregated of 20,000 rows, not the rows."""
    rows = [
        {"method": m, "seed": s, "accuracy": 90.0 + (s % 7) - (m == "b")} for m in "ab" for s in range(10_000)
    ]
    few = page(Published(STUDY, Rows(rows[::1000], [], "smoke")))
    many = page(Published(STUDY, Rows(rows, [], "smoke")))
    assert len(report.render(many)) < 1.1 * len(report.render(few)) < 100_000


def test_times_are_readable() -> None:
    assert [duration(s) for s in (0.04, 12.3, 600.0, 9000.0)] == ["0.0 s", "12 s", "10 min", "2:30:00"]
