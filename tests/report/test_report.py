"""The report as text: complete, self-contained, escaped, equal for equal input."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from regraft import report
from regraft.errors import FileError, InputError, MissingDependency
from regraft.report import lines
from regraft.report.page import cell, summary

VOID = {"meta", "line", "path", "rect", "br", "image", "use"}


class Outline(HTMLParser):
    """Collects tags and checks that they close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def outline(html: str) -> Outline:
    parsed = Outline()
    parsed.feed(html)
    assert parsed.open == []
    return parsed


def test_every_part_is_on_the_page_with_words_and_data(html: str) -> None:
    page = outline(html)
    charts = [a for t, a in page.tags if t == "svg" and a.get("class") == "chart"]
    assert len(charts) == 10  # curves, pattern, 2 accuracies, 2 losses, scatter, distances, densities, values
    assert all(a["role"] == "img" and len(a["aria-label"] or "") > 30 for a in charts)
    assert sum(t == "details" for t, _ in page.tags) == 10
    for text in ("Four sparse networks with 10 %", "Best parent", "mlp:64-256-256-10", "Test images: 360."):
        assert text in page.text
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_the_numbers_of_a_grid_are_in_its_cells_and_in_its_table(results: dict[str, Any]) -> None:
    grid = results["grids"][0]
    page = outline(report.render({"grids": [grid]})).text
    for row in grid["accuracy"]:
        for value in row:
            assert page.count(f"{100 * value:.1f}") >= 2


def test_the_label_of_a_grid_names_the_best_rules() -> None:
    grid = {
        "name": "merged",
        "weights": ["a", "b"],
        "biases": ["x", "y"],
        "accuracy": [[0.1, 0.2], [0.7, None]],
    }
    html = report.render({"grids": [grid]})
    assert "best 70.0 with weights by b and biases by x" in html
    assert "Merged (merged), the best rules are b for weights and x for biases: 70.0 %." in html


def test_the_same_results_give_the_same_bytes_in_another_process(
    html: str, results: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results))
    code = (
        "import json, sys; from regraft import report;"
        "report.write(sys.argv[2], json.load(open(sys.argv[1], encoding='utf-8')))"
    )
    there = tmp_path / "there.html"
    subprocess.run([sys.executable, "-c", code, tmp_path / "results.json", there], check=True)
    assert there.read_bytes() == html.encode("utf-8")


def test_user_settings_of_matplotlib_do_not_change_the_report_and_come_back(results: dict[str, Any]) -> None:
    import matplotlib

    small = {"curves": results["curves"]}
    before = report.render(small)
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False}):
        assert report.render(small) == before
        assert matplotlib.rcParams["font.size"] == 30


def test_nothing_on_the_page_points_outside_it(html: str) -> None:
    for _, attributes in outline(html).tags:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/png")), value
    assert "<script" not in html
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    assert "default-src 'none'" in html


def test_every_inner_reference_has_its_target(html: str) -> None:
    ids = set(re.findall(r'\bid="([^"]+)"', html))
    references = re.findall(r'href="#([^"]+)"', html) + re.findall(r"url\(#([^)]+)\)", html)
    assert references
    assert set(references) <= ids


def test_no_placeholder_colour_is_left_and_each_variable_is_defined_for_both_themes(html: str) -> None:
    assert not re.search(r"#01010[1234]|#01020[1-8]|#01030[1-5]", html)
    light, dark = html.split("prefers-color-scheme: dark", 1)
    for variable in set(re.findall(r"var\((--[a-z0-9-]+)\)", html)) - {"--font"}:
        assert f"{variable}:" in light, variable
        assert f"{variable}:" in dark.split("@media print")[0], variable


NASTY = '<script>alert(1)</script> $x_$ & "quoted" #010101 url(#a)'


def test_text_is_escaped_everywhere() -> None:
    results = {
        "title": NASTY,
        "summary": NASTY,
        "facts": [{"label": NASTY, "value": NASTY, "note": NASTY}],
        "curves": [{"name": NASTY, "epochs": [1, 2], "accuracy": [0.5, 0.6]}],
        "grids": [
            {"name": NASTY, "weights": [NASTY], "biases": [NASTY], "accuracy": [[0.5]], "loss": [[0.5]]}
        ],
        "points": [{"name": NASTY, "group": NASTY, "nnstd": 0.5, "accuracy": 0.5}],
        "distances": {"names": [NASTY], "nnstd": [[0]]},
        "pattern": {"shape": [1, 2], "networks": [{"name": NASTY, "counts": [1, 2]}]},
        "densities": {"layers": [NASTY], "networks": [{"name": NASTY, "densities": [0.5]}]},
        "histogram": {
            "title": NASTY,
            "caption": NASTY,
            "unit": NASTY,
            "panels": [
                {
                    "name": NASTY,
                    "sets": [{"name": NASTY, "edges": [0, 1], "counts": [1], "mean": 0, "std": 0}],
                }
            ],
        },
        "tables": [{"title": NASTY, "columns": [NASTY], "rows": [[NASTY]], "note": NASTY}],
        "configuration": {NASTY: NASTY},
        "generated": NASTY,
    }
    html = report.render(results)
    assert "<script" not in html
    page = outline(html)
    assert page.text.count(NASTY) >= 15  # text nodes come back exactly as they were


PARTS = ["curves", "grids", "points", "distances", "pattern", "densities", "histogram", "tables"]


@pytest.mark.parametrize("part", PARTS)
def test_each_part_stands_alone(results: dict[str, Any], part: str) -> None:
    assert "<h2>" in report.render({part: results[part]})


def test_an_empty_report_is_a_page_without_sections() -> None:
    html = report.render({})
    outline(html)
    assert "<h2>" not in html


def test_more_than_eight_networks_share_one_colour_under_their_mean() -> None:
    curves = [{"name": f"n{i}", "epochs": [1, 2], "accuracy": [0.1 * (i % 9), None]} for i in range(12)]
    html = report.render({"curves": curves})
    assert "each of 12 networks" in html
    assert "</svg>\nmean</li>" in html


def test_the_table_of_a_long_training_has_some_epochs_and_the_last() -> None:
    curve = {"name": "n", "epochs": list(range(1, 1501)), "accuracy": [e / 2000 for e in range(1, 1501)]}
    rows = lines.curves([curve]).data["rows"]  # type: ignore[list-item]
    assert [row[0] for row in rows[:2]] == ["15", "30"]
    assert rows[-1] == ["1500", "75.0"]
    assert len(rows) == 100


def test_the_reference_is_a_line_with_its_number(results: dict[str, Any]) -> None:
    html = report.render({"points": results["points"], "reference": results["reference"]})
    assert "parents, mean: 96.8 %" in html


def test_a_name_in_another_script_is_no_warning() -> None:
    html = report.render(
        {"densities": {"layers": ["層"], "networks": [{"name": "网络", "densities": [0.5]}]}}
    )
    assert "層" in html


BAD = [
    (["curves", 0, "accuracy"], [0.5], "20 epochs but 1 accuracies"),
    (["curves", 0, "accuracy", 0], float("nan"), "holds nan"),
    (["grids", 0, "accuracy", 0], [0.5], "5 names of columns but 1 numbers in a row"),
    (["grids", 1, "loss"], [], "5 names of rows but 0 rows"),
    (["points", 0, "nnstd"], "far", "holds 'far'"),
    (["distances", "nnstd", 0], [0.0], "4 names of columns"),
    (["pattern", "shape"], [8], r"must be \[height, width\]"),
    (["pattern", "networks", 0, "counts"], [1.0], "64 pixels but 1 counts"),
    (["pattern", "mean_image"], [1.0], "64 pixels but 1 values"),
    (["densities", "networks", 0, "densities"], [1.0], "3 layers but 1 densities"),
    (["histogram", "panels", 0, "sets", 0, "counts"], [1], "2 ends of bins but 3 edges"),
    (["histogram", "panels", 2, "sets", 1, "mean"], None, "holds None"),
    (["tables", 0, "rows", 0], ["a"], "4 columns but 1 cells"),
    (["curves"], [{}], "lacks the field 'name'"),
    (["curves"], [3], "wrong form"),
    (["grid"], [], "no part 'grid': did you mean 'grids'"),
]


@pytest.mark.parametrize(("where", "value", "message"), BAD)
def test_a_part_of_the_wrong_form_is_named(
    results: dict[str, Any], where: list[Any], value: Any, message: str
) -> None:
    broken = copy.deepcopy(results)
    inner = broken
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    with pytest.raises(InputError, match=message):
        report.render(broken)


def test_a_failed_report_leaves_what_was_there(results: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    report.write(path, {"title": "first"})
    with pytest.raises(InputError):
        report.write(path, {"curvs": []})
    assert "first" in path.read_text(encoding="utf-8")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"file/inner"):
        report.write(tmp_path / "file" / "inner" / "report.html", {})


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_a_missing_package_is_named_with_its_extra(
    results: dict[str, Any], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=rf"'{package}'.*regraft\[report\]"):
        report.render(results)


def test_cells() -> None:
    assert [cell(v) for v in (None, True, 1234567, 0.5, {"a": 1}, (1, None))] == [
        "\N{EN DASH}", "yes", "1,234,567", "0.5", "a 1", "1, \N{EN DASH}"
    ]  # fmt: skip


def test_a_summary_is_made_from_the_figures_when_none_is_given(results: dict[str, Any]) -> None:
    del results["summary"]
    words = summary(results)  # type: ignore[arg-type]
    assert words.startswith("After training, 4 networks reach between ")
    assert "Merged (after resparsifying), the best rules are " in words
