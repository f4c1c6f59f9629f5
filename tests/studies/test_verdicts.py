"""Verdicts: every way in which a claim can end, and the sentence that goes with it."""

import json
from dataclasses import replace

import pytest

from regraft.errors import InputError
from regraft.report import render
from regraft.studies import Number, Order, Preset, Rows, Study
from regraft.studies.publish.page import against
from regraft.studies.publish.published import Published
from regraft.studies.statistics import by_seed, holm, paired, welch
from regraft.studies.verdicts import judge, verdicts


def rows(preset="paper", missing=0, **methods):
    found = [{"m": m, "seed": i, "acc": a} for m, values in methods.items() for i, a in enumerate(values)]
    return Rows(found, [], preset, missing)


def of(name):
    return lambda r: r.where(m=name).column("acc")


def seeds_of(name):
    return lambda r: by_seed(r.where(m=name).rows, "acc")


NUMBER = Number("SynFlow at density .5 %", "table 5.1", 97.0, 0.5, of("a"))
ORDER = Order("a beats b", "figure 3", of("a"), of("b"))


def test_a_number_within_its_tolerance_is_reproduced():
    v = judge(NUMBER, rows(a=[97.2, 97.4]), comparable=True)
    assert (v.verdict, v.n, v.p) == ("reproduced", 2, None)
    assert v.mean == pytest.approx(97.3)
    assert v.why == "97.3 % is within 0.5 of the published 97 %."
    assert v.published == "97 %"
    assert v.measured == "97.3 ± 1.27 %"
    # the edge counts
    assert judge(NUMBER, rows(a=[97.5]), comparable=True).verdict == "reproduced"


def test_a_number_outside_is_not_and_the_sentence_says_how_far():
    v = judge(NUMBER, rows(a=[95.0, 95.2]), comparable=True)
    assert v.verdict == "not reproduced"
    assert v.why == "95.1 % is 1.9 below the published 97 %, more than the tolerance of 0.5."
    wide = judge(NUMBER, rows(a=[90.0, 99.0]), comparable=True)
    assert wide.why.endswith("tolerance of 0.5, though the interval holds the published number.")


def test_a_number_of_a_small_preset_is_out_of_scale_but_shown():
    v = judge(NUMBER, rows("small", a=[80.0, 81.0]))
    assert (v.verdict, v.mean) == ("out of scale", 80.5)
    assert "preset 'small' is smaller than the original" in v.why
    # a claim can say itself where it may be compared
    own = replace(NUMBER, comparable=("small",))
    assert judge(own, rows("small", a=[97.0])).verdict == "reproduced"
    assert judge(own, rows("paper", a=[97.0]), comparable=True).verdict == "out of scale"


def test_what_was_not_measured_is_out_of_scale():
    v = judge(NUMBER, rows(), comparable=True)
    assert (v.verdict, v.mean, v.interval, v.measured) == ("out of scale", None, None, "-")
    assert v.why == "Not measured: the preset 'paper' does not go there."
    assert "3 cells of the preset 'paper' are not done" in judge(ORDER, rows(missing=3, a=[1.0])).why


def test_a_measure_may_stumble_over_missing_rows_but_not_over_its_own_mistakes():
    broken = replace(NUMBER, measure=lambda r: [r.rows[100]["acc"]])
    assert judge(broken, rows(missing=1, a=[97.0])).verdict == "out of scale"
    with pytest.raises(IndexError):
        judge(broken, rows(a=[97.0]))


def test_an_ordering_that_is_significant_is_reproduced():
    a, b = [97.0, 97.5, 98.0], [96.0, 96.4, 97.1]
    v = judge(ORDER, rows(a=a, b=b))
    assert (v.verdict, v.n) == ("reproduced", 3)
    assert v.p == paired(a, b).p
    assert v.mean == pytest.approx(1.0)
    assert v.means == (pytest.approx(97.5), pytest.approx(96.5))
    assert v.why == "Better by 1 % (paired, n = 3, p = 0.0033)."
    assert (v.published, v.measured) == ("better", "+1 ± 0.248 %")


def test_an_ordering_without_pairs_takes_welchs_test():
    a, b = [97.0, 97.5, 98.0], [96.0, 96.4]
    expected = welch(a, b).p
    assert judge(replace(ORDER, paired=False), rows(a=a, b=b)).p == expected
    # a failed cell leaves unequal numbers, which cannot be paired by place, but by seed
    assert judge(ORDER, rows(a=a, b=b)).p == expected
    by_seeds = replace(ORDER, better=seeds_of("a"), worse=seeds_of("b"))
    assert judge(by_seeds, rows(a=a, b=b)).p == paired(a[:2], b).p


def test_seeds_that_are_not_shared_are_not_paired():
    far = replace(ORDER, better=lambda r: {0: 97.0, 1: 97.2}, worse=lambda r: {2: 91.0, 3: 91.3})
    assert judge(far, rows(a=[1.0])).p == welch([97.0, 97.2], [91.0, 91.3]).p
    diverged = replace(ORDER, better=lambda r: [float("nan")] * 2)
    assert judge(diverged, rows(b=[1.0, 2.0])).why.startswith("Not measured")


def test_an_ordering_by_chance_is_not_told_apart():
    v = judge(ORDER, rows(a=[97.0, 96.0, 98.0], b=[96.5, 97.0, 96.9]))
    assert v.verdict == "not reproduced"
    assert v.why.startswith("Not told apart: 0.2 % better on average (paired, n = 3, p = 0.78).")


def test_an_ordering_the_other_way_round_says_so():
    v = judge(ORDER, rows(a=[90.0, 90.1, 90.2], b=[96.0, 96.2, 96.1]))
    assert v.verdict == "not reproduced"
    assert v.why.startswith("The other way round: worse by 6 % (paired, n = 3, p")


def test_an_ordering_may_claim_a_least_difference():
    table = rows(a=[97.0, 97.1, 97.2], b=[96.0, 96.1, 96.21])
    v = judge(replace(ORDER, least=5.0), table)
    assert v.verdict == "not reproduced"
    assert v.why.endswith("less than the 5 % claimed.")
    assert judge(replace(ORDER, least=0.5), table).verdict == "reproduced"


def test_no_worse_than_by_so_much_is_tested_as_that():
    a, b = [96.0, 96.2, 96.4], [96.1, 96.25, 96.6]
    assert judge(ORDER, rows(a=a, b=b)).verdict == "not reproduced"
    v = judge(replace(ORDER, least=-1.0), rows(a=a, b=b))
    assert (v.verdict, v.mean) == ("reproduced", pytest.approx(-0.11667, abs=1e-4))
    assert v.why.startswith("It is no worse than by 1 %: 0.117 % worse on average")
    far = judge(replace(ORDER, least=-1.0), rows(a=[90.0, 90.2, 90.4], b=b))
    assert far.verdict == "not reproduced"
    assert far.why.startswith("Worse by 6.12 %, more than allowed")
    wide = judge(replace(ORDER, least=-1.0), rows(a=[94.0, 96.2, 98.4], b=b))
    assert wide.why.startswith("Not sure to be no worse than by 1 %")


def test_one_sample_each_cannot_be_judged():
    v = judge(ORDER, rows(a=[97.0], b=[90.0]))
    assert (v.verdict, v.mean, v.p) == ("out of scale", 7.0, None)
    assert "run more seeds" in v.why


def test_an_ordering_can_be_kept_from_small_presets():
    table = rows("smoke", a=[97.0, 97.5, 98.0], b=[96.0, 96.4, 97.1])
    v = judge(replace(ORDER, scale=("paper",)), table)
    assert v.verdict == "out of scale"
    assert "preset 'smoke' is too small to judge it" in v.why


def study(*claims):
    presets = {"paper": Preset({}, "", comparable=True), "smoke": Preset({}, "")}
    return Study("s", "S", "", "", lambda settings: [], presets, claims)


def test_orderings_of_a_study_are_corrected_together():
    table = rows(a=[97.0, 97.5, 98.0], b=[96.0, 96.4, 97.1], c=[96.4, 97.3, 97.5])
    second = replace(ORDER, worse=of("c"))
    out = replace(ORDER, scale=("other",))
    missing = replace(ORDER, worse=of("none"))
    found = verdicts(study(NUMBER, ORDER, second, out, missing), table)
    raw = [judge(c, table).p for c in (ORDER, second)]
    assert [v.p for v in found[1:3]] == holm(raw)
    assert found[1].why.endswith("corrected).")
    assert [v.verdict for v in found] == [
        "reproduced", "reproduced", "not reproduced", "out of scale", "out of scale",
    ]  # fmt: skip
    # alone, the second would have counted: that is what the correction is for
    assert judge(second, table).p < 0.1 < 2 * judge(second, table).p
    with pytest.raises(InputError, match="has no preset 'large'"):
        verdicts(study(NUMBER), rows("large"))


def test_the_presets_decide_whether_numbers_compare():
    assert verdicts(study(NUMBER), rows("smoke", a=[97.0]))[0].verdict == "out of scale"
    assert verdicts(study(NUMBER), rows("paper", a=[97.0]))[0].verdict == "reproduced"


def test_verdicts_go_into_reports_and_json():
    made_of, table = study(NUMBER, ORDER, replace(ORDER, published=2.0)), rows(a=[97.0, 97.5], b=[96.0, 96.1])
    found = verdicts(made_of, table)
    (made,) = against(Published(made_of, table, found))
    assert [row[5]["text"] for row in made["rows"]] == [v.verdict for v in found]
    assert made["rows"][2][2] == "+2 %"
    assert "SynFlow at density .5 %" in render({"title": "T", "tables": [made]})
    plain = json.loads(json.dumps([v.plain() for v in found], allow_nan=False))
    assert [p["kind"] for p in plain] == ["number", "order", "order"]
    assert plain[0]["interval"] == [
        pytest.approx(97.25 - 3.1766, abs=1e-3),
        pytest.approx(97.25 + 3.1766, abs=1e-3),
    ]
