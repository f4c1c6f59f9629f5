"""Figures of studies: what is drawn of them, what their tables say, and what is refused."""

from __future__ import annotations

import copy
import math
import re
from typing import Any

import numpy as np
import pytest

from regraft import report
from regraft.errors import InputError
from regraft.report import parallel, svg
from regraft.report.chart import Chart
from regraft.report.clouds import _outline
from regraft.report.draw import draw
from regraft.report.figure_checks import CHECKS
from regraft.report.schema import check


def of_kind(figures: list[dict[str, Any]], kind: str, at: int = 0) -> dict[str, Any]:
    return [f for f in figures if f["kind"] == kind][at]


def drawn(figure: dict[str, Any]) -> Chart:
    check({"figures": [figure]})
    return draw(figure, "figure-0")  # type: ignore[arg-type]


def test_each_kind_has_words_a_table_and_its_names(figures: list[dict[str, Any]]) -> None:
    html = report.render({"figures": figures})
    assert html.count('role="img"') == html.count("The figures as a table") == len(figures)
    for figure in figures:
        assert figure["title"] in html
        assert figure["caption"] in html
    assert {f["kind"] for f in figures} == set(CHECKS)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert not re.search(r"#0101|#0102|#0103", html)


def test_lines_have_a_table_over_all_their_places(figures: list[dict[str, Any]]) -> None:
    figure = of_kind(figures, "lines")
    figure["series"] = [
        {"name": "a", "x": [1.0, 2.0], "y": [3.14159, None], "spread": [0.5, None]},
        {"name": "b", "x": [2.0, 4.0], "y": [1.0, 12345.0]},
    ]
    chart = drawn(figure)
    dash = "\N{EN DASH}"
    assert chart.data["columns"] == ["Density (%)", "a", "b"]
    assert chart.data["rows"] == [["1", "3.142 ± 0.5", dash], ["2", dash, "1"], ["4", dash, "12,345"]]
    assert "a is 3.14 at 1; b goes from 1.00 at 2 to 12345 at 4" in chart.svg
    assert [k.name for k in chart.legend] == ["a", "b", "dense: 98.1"]


def test_up_to_32_lines_differ_by_colour_and_dashes() -> None:
    series = [{"name": str(i), "x": [1.0], "y": [1.0]} for i in range(32)]
    figure = {"kind": "lines", "title": "", "caption": "", "x": "", "y": "", "series": series}
    legend = drawn(figure).legend
    assert len({(k.series, k.dashes) for k in legend}) == 32
    assert "20 more in the legend" in report.render({"figures": [figure]})


def test_a_logarithmic_axis_has_plain_numbers(figures: list[dict[str, Any]]) -> None:
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", drawn(of_kind(figures, "lines")).svg)
    assert {"0.1", "1", "10", "100"} <= set(texts)
    assert not any("$" in t or "{" in t for t in texts)


def test_boxes_tell_their_five_numbers(figures: list[dict[str, Any]]) -> None:
    figure = of_kind(figures, "boxes")
    figure["boxes"] = [report.box("one", [1.0, 2.0, 3.0, 4.0, 10.0])]
    chart = drawn(figure)
    assert chart.data["rows"] == [["one", 5, "1", "2", "3", "4", "10", "4"]]
    assert "expected: 0.600" in [k.name for k in chart.legend]


def test_sets_of_bars_differ_by_pattern_and_order(figures: list[dict[str, Any]]) -> None:
    chart = drawn(of_kind(figures, "bars"))
    assert [(k.series, k.hatch) for k in chart.legend] == [(1, 0), (2, 1), (3, 2), (4, 3)]
    assert chart.svg.count("<pattern") == 3
    assert all(svg.TILES[i] in chart.svg for i in (1, 2, 3))
    assert chart.data["rows"][1] == ["Prostate_GE", *["\N{EN DASH}"] * 4]
    assert chart.data["rows"][2][1] == "700 ± 30"


def test_a_single_nameless_set_has_no_legend(figures: list[dict[str, Any]]) -> None:
    assert drawn(of_kind(figures, "bars", 1)).legend == []


def test_parallel_coordinates_tell_the_mean_of_each_place(figures: list[dict[str, Any]]) -> None:
    figure = of_kind(figures, "parallel")
    figure["axes"] = [{"name": "rule", "places": ["a", "b", "never"]}, {"name": "n", "places": None}]
    figure["strands"] = [
        {"values": ["a", 1.0], "figure": 10.0}, {"values": ["a", 2.0], "figure": 20.0},
        {"values": ["b", 2.0], "figure": 60.0},
    ]  # fmt: skip
    chart = drawn(figure)
    assert chart.data["rows"] == [
        ["rule", "a", 2, "15", "10", "20"], ["rule", "b", 1, "60", "60", "60"],
        ["n", "1.00", 1, "10", "10", "10"], ["n", "2.00", 2, "40", "20", "60"],
    ]  # fmt: skip
    assert "The highest mean, 60, is at rule b." in chart.svg


def test_many_strands_are_thinned_out_but_all_are_in_the_table(figures: list[dict[str, Any]]) -> None:
    figure = of_kind(figures, "parallel")
    figure["axes"] = [{"name": "n", "places": None}]
    figure["strands"] = [{"values": [float(i % 90)], "figure": float(i)} for i in range(5000)]
    chart = drawn(figure)
    assert f"{parallel.MOST_DRAWN} of 5,000 lines are drawn" in chart.caption
    assert sum(row[2] for row in chart.data["rows"]) == 5000
    assert len(chart.data["rows"]) == parallel.PARTS
    assert len(chart.svg) < 100_000


def test_strands_of_one_figure_are_drawn(figures: list[dict[str, Any]]) -> None:
    figure = of_kind(figures, "parallel")
    figure["strands"] = [{**s, "figure": 5.0} for s in figure["strands"][:3]]
    assert len(drawn(figure).legend) == 1


def test_an_ellipse_covers_two_standard_deviations_whatever_the_units() -> None:
    """Mahalanobis distance 2 at each of its points."""
    covariance = np.array([[1e-4, 0.03], [0.03, 100.0]])
    seen: list[Any] = []

    class Axes:
        def plot(self, x: Any, y: Any, **look: Any) -> None:
            seen.append(np.stack([x - 0.5, y - 80.0]))

    _outline(Axes(), [0.5, 80.0], covariance, color="black")  # type: ignore[arg-type]
    distance = np.einsum("ip,ij,jp->p", seen[0], np.linalg.inv(covariance), seen[0])
    np.testing.assert_allclose(np.sqrt(distance), 2.0, rtol=1e-9)


def test_ellipses_tell_mean_spread_and_correlation(figures: list[dict[str, Any]]) -> None:
    figure = of_kind(figures, "ellipses")
    figure["clouds"] = [
        report.ellipse("a", [0.0, 1.0, 2.0], [0.0, 2.0, 4.0]),
        report.ellipse("b", [1.0], [1.0]),
    ]
    rows = drawn(figure).data["rows"]
    assert rows[0] == ["a", 3, "1", f"{math.sqrt(2 / 3):.4g}", "2", f"{math.sqrt(8 / 3):.4g}", "1"]
    assert rows[1] == ["b", 1, "1", "0", "1", "0", "\N{EN DASH}"]


def test_a_heatmap_names_its_extremes_and_shows_its_numbers(figures: list[dict[str, Any]]) -> None:
    chart = drawn(of_kind(figures, "heatmap"))
    assert "highest 43.0 at random, nothing; lowest 1.00 at average, magnitude" in chart.svg
    assert ">43.0</text>" in chart.svg
    assert chart.data["rows"][0] == ["magnitude", "\N{EN DASH}", "10", "20", "30", "40"]


def test_limits_make_heatmaps_comparable(figures: list[dict[str, Any]]) -> None:
    def colours(figure: dict[str, Any]) -> set[str]:
        return set(re.findall(r"fill: (#[0-9a-f]{6})", drawn(figure).svg))

    figure = of_kind(figures, "heatmap")
    figure["values"] = [[1.0] * 5] * 4 + [[2.0] * 5]
    wide = {**figure, "limits": [1.0, 2.0]}
    assert colours(wide) == colours(figure)
    assert colours({**figure, "limits": [0.0, 40.0]}) != colours(figure)


def test_pictures_share_one_scale(figures: list[dict[str, Any]]) -> None:
    figure = of_kind(figures, "pictures")
    figure["pictures"] = [
        {"name": "low", "values": [0.0] * 63 + [1.0]}, {"name": "high", "values": [4.0] * 64}
    ]  # fmt: skip
    chart = drawn(figure)
    assert chart.caption.endswith("Black is 0, white is 4.")
    assert chart.data["rows"] == [["low", "0", "0", "1", 63], ["high", "4", "4", "4", 0]]


EMPTY = {
    "lines": {"series": []},
    "boxes": {"boxes": []},
    "bars": {"groups": [], "sets": []},
    "parallel": {"strands": []},
    "ellipses": {"clouds": []},
    "heatmap": {"rows": ["a"], "columns": ["b"], "values": [[None]]},
    "pictures": {"pictures": []},
}


@pytest.mark.parametrize("kind", EMPTY)
def test_a_figure_without_results_is_named_and_not_drawn(figures: list[dict[str, Any]], kind: str) -> None:
    figure = of_kind(figures, kind) | EMPTY[kind]
    html = report.render({"figures": [figure]})
    assert f"No results yet for: {figure['title']}." in html
    assert "<svg class=" not in html


BAD: list[tuple[str, list[Any], Any, str]] = [
    ("lines", ["kind"], "line", "unknown kind of figure 'line': did you mean 'lines'"),
    (
        "lines",
        ["series", 0, "y"],
        [1.0],
        r"'Accuracy against density', lines\): series 'SNIP' has 7 x but 1 y",
    ),
    ("lines", ["series", 1, "y", 2], math.nan, r"series 'SynFlow': y holds nan, but must hold finite"),
    ("lines", ["series", 0, "x", 0], 0.0, "x holds 0.0, which has no place on a logarithmic axis"),
    ("lines", ["series", 0, "spread", 0], -1.0, "a spread is not negative"),
    ("lines", ["series", 0, "spread"], [1.0], "7 values but 1 spreads"),
    ("lines", ["levels", 0, "value"], None, "level 'dense' holds None"),
    ("boxes", ["boxes", 0, "median"], 99.0, "low, q1, median, q3 and high must increase"),
    ("bars", ["sets", 1, "values"], [1.0], "set 'SET' has 3 groups but 1 values"),
    ("bars", ["sets", 0, "values", 0], -1.0, "no place on a logarithmic axis"),
    (
        "parallel",
        ["strands", 3, "values", 0],
        "magnitud",
        r"strands\[3\] has 'magnitud' on the axis 'Weight rule'",
    ),
    ("parallel", ["strands", 0, "values", 3], "two", "Parents holds 'two'"),
    ("parallel", ["strands", 0, "values"], ["magnitude"], "4 axes but 1 values"),
    ("ellipses", ["clouds", 0, "covariance"], [[1.0]], "covariance has 2 names of rows but 1 rows"),
    ("ellipses", ["clouds", 0, "mean", 1], math.inf, "mean holds inf"),
    ("heatmap", ["values", 0], [1.0], "5 names of columns but 1 numbers in a row"),
    ("heatmap", ["limits"], [1.0], "limits has 2 ends but 1 numbers"),
    ("pictures", ["pictures", 0, "values"], [1.0], "64 pixels but 1 values"),
    ("pictures", ["shape"], [8], r"shape is \[8\], but must be \[height, width\]"),
]


@pytest.mark.parametrize(("kind", "where", "value", "message"), BAD)
def test_a_figure_of_the_wrong_form_is_named(
    figures: list[dict[str, Any]], kind: str, where: list[Any], value: Any, message: str
) -> None:
    broken = copy.deepcopy(of_kind(figures, kind))
    inner = broken
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    with pytest.raises(InputError, match=message) as caught:
        report.render({"figures": [broken]})
    assert "figures[0]" in str(caught.value) or "unknown kind" in str(caught.value)


@pytest.mark.parametrize("field", ["caption", "x", "series"])
def test_a_missing_field_is_named(figures: list[dict[str, Any]], field: str) -> None:
    broken = of_kind(figures, "lines")
    del broken[field]
    with pytest.raises(InputError, match=f"lacks the field '{field}'"):
        report.render({"figures": [broken]})
