"""The page of a study and the index as a browser shows them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from regraft import report
from regraft.studies import Cell, Number, Order, Outcome, Preset, Result, Rows, Study, Work, step
from regraft.studies.publish import Published, index, page
from regraft.studies.verdicts import verdicts

LOUD = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")


@step
def nothing(work: Work) -> Outcome:
    return Outcome()


def samples(method: str) -> Any:
    return lambda rows: rows.where(method=method).column("accuracy")


STUDY = Study(
    name="two-methods",
    title="Two methods whose title is long enough to need more than one line on a phone",
    reproduces="thesis 9, figures 11-16, 19 and 20, tables 2 and 4-6",
    about="Is one better than the other? " * 5,
    cells=lambda settings: [Cell(nothing, {})],
    presets={"small": Preset({"a-long-setting": "x" * 60}, "1 s", comparable=True)},
    claims=[
        Order("a is better than b", "table 1", samples("a"), samples("b")),
        Order("b is better than a", "table 1", samples("b"), samples("a")),
        *(Number(f"accuracy of a, number {i}", "table 2", 80.0 + i, 2.0, samples("a")) for i in range(45)),
    ],
    differs=("Everything.",),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(0)
    rows = [
        {"method": m, "accuracy": (90 if m == "a" else 80) + rng.random()} for m in "ab" for _ in range(9)
    ]
    done = [Result("k", "train", {}, rows, [], Path(), 3.0)]
    table = Rows(rows, done, "small", missing=3)
    found = Published(STUDY, table, verdicts(STUDY, table), failed=1)
    out = tmp_path_factory.mktemp("studies")
    report.write(out / found.file, page(found))
    report.write(out / "index.html", index([found], "small"))
    return out


@pytest.mark.parametrize("name", ["two-methods.html", "index.html"])
@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1280, False)])
def test_pages_fit_and_are_quiet(browser: Any, folder: Path, name: str, width: int, dark: bool) -> None:
    browser.open(folder / name, width, dark=dark)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert [e for e in browser.events if e["method"] in LOUD] == []
    sent = [
        e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"
    ]
    assert sent == [(folder / name).resolve().as_uri()]
    notice = browser.evaluate("document.querySelector('.notice').textContent")
    assert ("partial" if name == "two-methods.html" else "Not complete: two-methods.") in notice
    assert browser.evaluate("document.querySelectorAll('.mark.yes, .mark.no').length") == 47


def test_the_index_leads_to_the_study_and_back(browser: Any, folder: Path) -> None:
    browser.open(folder / "index.html", 1280)
    there = browser.evaluate("document.querySelector('tbody a').href")
    assert there == (folder / "two-methods.html").resolve().as_uri()
    browser.open(folder / "two-methods.html", 1280)
    assert browser.evaluate("document.querySelector('nav a').href").endswith("/index.html")


def test_a_long_table_scrolls_under_its_head(browser: Any, folder: Path) -> None:
    browser.open(folder / "two-methods.html", 1280)
    seen = browser.evaluate("""(() => {
      const box = document.querySelector(".tall");
      box.scrollTop = 900;
      const head = box.querySelector("thead th").getBoundingClientRect();
      return [box.clientHeight < box.scrollHeight, head.top - box.getBoundingClientRect().top, box.tabIndex];
    })()""")
    assert seen[0]
    assert 0 <= seen[1] < 5
    assert seen[2] == 0
