"""Statistics against SciPy, against numbers worked by hand, and their properties."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from regraft.errors import InputError
from regraft.studies.statistics import (
    benjamini_hochberg,
    by_seed,
    compare,
    holm,
    letters,
    marks,
    paired,
    summary,
    table_of,
    welch,
)
from regraft.studies.statistics.compare import tell_apart

NUMBERS = st.floats(-1e6, 1e6).map(lambda x: round(x, 3))
SAMPLES = st.lists(NUMBERS, min_size=2, max_size=12)
P = st.lists(st.floats(0, 1), min_size=1, max_size=12)
nan = math.nan


def spread(samples):
    return np.ptp(samples) > 1e-6 * (1 + np.abs(samples).max())


# --- summary


@given(SAMPLES)
def test_summary_agrees_with_scipy(samples):
    assume(spread(samples))
    s = summary(samples, 0.9)
    low, high = stats.t.interval(0.9, len(samples) - 1, loc=np.mean(samples), scale=stats.sem(samples))
    assert s.mean == pytest.approx(np.mean(samples), abs=1e-8)
    assert s.sd == pytest.approx(np.std(samples, ddof=1))
    assert (s.low, s.high) == (
        pytest.approx(low, rel=1e-9, abs=1e-6),
        pytest.approx(high, rel=1e-9, abs=1e-6),
    )
    assert s.median == np.median(samples)


def test_summary_by_hand():
    # t(4, 0.975) = 2.776445, sd = sqrt(2.5), n = 5
    s = summary([1.0, 2.0, 3.0, 4.0, 5.0])
    assert s.half == pytest.approx(2.776445 * math.sqrt(2.5) / math.sqrt(5), rel=1e-6)


@given(SAMPLES, st.floats(0.5, 100), st.floats(-100, 100))
def test_summary_follows_a_change_of_unit(samples, scale, shift):
    a, b = summary(samples), summary([scale * x + shift for x in samples])
    assert b.mean == pytest.approx(scale * a.mean + shift, rel=1e-6, abs=1e-6)
    assert b.half == pytest.approx(scale * a.half, rel=1e-6, abs=1e-6)


@given(NUMBERS, st.integers(2, 9))
def test_equal_samples_have_an_interval_of_width_0(x, n):
    s = summary([x] * n)
    assert (s.mean, s.sd, s.low, s.high) == (x, 0.0, x, x)


def test_the_interval_holds_the_mean_as_often_as_it_says():
    generator = np.random.default_rng(0)
    held = [
        s.low <= 5 <= s.high for s in (summary(generator.normal(5, 2, 4).tolist(), 0.8) for _ in range(600))
    ]
    assert 0.75 < np.mean(held) < 0.85


def test_few_and_unusable_samples():
    one = summary([3.0])
    assert (one.n, one.mean, one.median) == (1, 3.0, 3.0)
    assert math.isnan(one.sd)
    assert math.isnan(one.half)
    none = summary([])
    assert (none.n, none.text()) == (0, "-")
    assert none.plain()["mean"] is None
    some = summary([1.0, nan, 3.0, math.inf])
    assert (some.n, some.missing, some.mean) == (2, 2, 2.0)
    with pytest.raises(InputError, match=r"confidence is 95, but must be in \(0, 1\)"):
        summary([1.0], 95)
    with pytest.raises(InputError, match="samples must be numbers"):
        summary(["a"])


def test_rows_of_one_seed_are_one_sample():
    rows = [{"seed": s, "acc": a} for s, a in [(0, 0.5), (0, 0.7), (1, 0.9), (2, None)]]
    assert by_seed(rows, "acc", scale=100) == {0: pytest.approx(60.0), 1: 90.0}


# --- tests


@given(SAMPLES, SAMPLES)
def test_welch_agrees_with_scipy(a, b):
    assume(spread(a) and spread(b))
    ours, theirs = welch(a, b), stats.ttest_ind(a, b, equal_var=False)
    interval = theirs.confidence_interval(0.95)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-12)
    assert ours.statistic == pytest.approx(theirs.statistic, rel=1e-6, abs=1e-9)
    assert ours.df == pytest.approx(theirs.df)
    assert ours.low == pytest.approx(interval.low, rel=1e-6, abs=1e-5)
    assert ours.high == pytest.approx(interval.high, rel=1e-6, abs=1e-5)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=12))
def test_paired_agrees_with_scipy(pairs):
    a, b = zip(*pairs, strict=True)
    assume(np.ptp(np.subtract(a, b)) > 1e-6 * (1 + np.abs(pairs).max()))
    ours, theirs = paired(a, b), stats.ttest_rel(a, b)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-12)
    assert ours.statistic == pytest.approx(theirs.statistic, rel=1e-6, abs=1e-9)


@given(SAMPLES, SAMPLES)
def test_exchanging_the_groups_changes_signs_only(a, b):
    one, other = welch(a, b), welch(b, a)
    assert one.p == other.p
    assert one.difference == -other.difference
    assert one.effect == pytest.approx(-other.effect, nan_ok=True)


def test_effect_by_hand():
    # d = -3 / 1, J(4) = 0.797885 (Hedges' table)
    assert welch([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]).effect == pytest.approx(-3 * 0.797885, rel=1e-5)
    # differences 1, 2, 3, 4: mean 2.5, sd 1.290994, J(3) = 0.723601
    ones = paired([2.0, 4.0, 6.0, 8.0], [1.0, 2.0, 3.0, 4.0])
    assert ones.effect == pytest.approx(0.723601 * 2.5 / 1.290994, rel=1e-5)


@pytest.mark.parametrize("test", [welch, paired])
def test_no_spread_is_certainty(test):
    same, apart = test([0.9, 0.9], [0.9, 0.9]), test([0.9, 0.9], [0.8, 0.8])
    assert (same.p, same.difference, same.effect) == (1.0, 0.0, 0.0)
    assert (apart.p, apart.effect) == (0.0, math.inf)
    # differences that are equal but for rounding
    assert paired([0.3, 0.7, 0.1], [0.1, 0.5, -0.1]).p == 0.0
    assert paired([0.1 + 0.2, 0.7], [0.3, 0.7]).p == 1.0


@pytest.mark.parametrize("test", [welch, paired])
def test_too_few_samples_give_no_p_value(test):
    alone = test([1.0], [2.0])
    assert alone.difference == -1.0
    assert math.isnan(alone.p)
    assert "unknown (too few samples)" in alone.told
    assert math.isnan(test([], []).p)
    assert math.isnan(test([nan, nan, 1.0], [1.0, nan, 2.0]).p)


def test_pairs_go_by_seed_and_leave_out_what_is_missing():
    a = {0: 1.0, 1: 5.0, 2: 9.0, 7: 100.0}
    b = {2: 8.0, 1: 4.5, 0: 0.0, 9: -100.0}
    assert paired(a, b).p == paired([1.0, 5.0, 9.0], [0.0, 4.5, 8.0]).p
    assert paired([1.0, nan, 3.0, 4.0], [0.0, 0.0, 2.5, 3.1]).n == (3, 3)
    with pytest.raises(InputError, match="must be as many, but are 2 and 3"):
        paired([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="give both as mappings"):
        paired({0: 1.0}, [1.0])


def test_shared_seeds_choose_the_paired_test():
    a, b = {0: 1.0, 1: 2.0, 2: 3.0}, {0: 2.0, 1: 3.0, 2: 4.5}
    assert tell_apart(a, b).method == "paired"
    assert tell_apart(a, {5: 2.0, 6: 3.0, 2: 4.5}).method == "welch"
    assert tell_apart([1.0, 2.0], [2.0, 3.0]).method == "welch"


# --- correction


def test_corrections_by_hand():
    # the example of Holm's procedure: 0.01 * 4, 0.015 * 3 -> 0.045, 0.02 * 2 -> 0.045, 0.3
    assert holm([0.3, 0.01, 0.02, 0.015]) == pytest.approx([0.3, 0.04, 0.045, 0.045])
    assert holm([]) == []
    np.testing.assert_allclose(holm([0.01, nan, 0.02]), [0.02, nan, 0.02])
    np.testing.assert_allclose(benjamini_hochberg([0.01, nan, 0.02]), [0.02, nan, 0.02])
    with pytest.raises(InputError, match=r"a p-value is 1.5, but must be in \[0, 1\]"):
        holm([0.1, 1.5])


@given(P)
def test_benjamini_hochberg_agrees_with_scipy(p):
    np.testing.assert_allclose(benjamini_hochberg(p), stats.false_discovery_control(p, method="bh"))


@given(P)
def test_holm_lies_between_no_correction_and_bonferroni(p):
    adjusted = np.array(holm(p))
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(np.array(p) * len(p), 1)).all()
    assert adjusted.min() == min(min(p) * len(p), 1)
    order = np.argsort(p, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
    assert (np.array(benjamini_hochberg(p)) <= adjusted + 1e-15).all()


@given(P, st.floats(0.001, 0.5))
def test_holm_rejects_what_the_stepwise_procedure_rejects(p, level):
    rejected = set()
    for step, i in enumerate(np.argsort(p, kind="stable")):
        if p[i] * (len(p) - step) >= level:
            break
        rejected.add(i)
    assert {i for i, q in enumerate(holm(p)) if q < level} == rejected


# --- many groups


@pytest.fixture
def groups():
    generator = np.random.default_rng(3)
    base = generator.normal(90, 2, 8)
    return {
        name: dict(enumerate(base + shift + generator.normal(0, 0.2, 8)))
        for name, shift in [("a", 0.0), ("b", 0.05), ("c", 1.5)]
    }


def test_all_against_a_reference_and_each_against_each(groups):
    against = compare(groups, "a")
    assert [(c.a, c.b) for c in against] == [("b", "a"), ("c", "a")]
    assert [c.p for c in against] == holm([c.test.p for c in against])
    assert marks(against) == {"b": "", "c": "*"}
    # the seeds' own spread of 2 hides the difference of 1.5 from a test that does not pair
    assert marks(compare({k: list(v.values()) for k, v in groups.items()}, "a")) == {"b": "", "c": ""}
    each = compare(groups)
    assert [(c.a, c.b) for c in each] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert letters(each) == {"a": "a", "b": "a", "c": "b"}


def test_a_group_between_two_others_has_two_letters(groups):
    each = compare(groups)
    chain = [replace(c, p=0.001 if (c.a, c.b) == ("a", "c") else 0.5) for c in each]
    assert letters(chain) == {"a": "a", "b": "ab", "c": "b"}
    assert letters([replace(c, p=0.001) for c in each]) == {"a": "a", "b": "b", "c": "c"}
    assert letters([]) == {}


@given(st.lists(st.booleans(), min_size=10, max_size=10))
def test_letters_are_shared_by_those_not_told_apart_alone(apart):
    each = compare({i: [float(i)] for i in range(5)})
    each = [replace(c, p=0.0 if sure else 1.0) for c, sure in zip(each, apart, strict=True)]
    shown = letters(each)
    for c in each:
        assert bool(set(shown[c.a]) & set(shown[c.b])) == (not c.significant)


def test_bad_comparisons(groups):
    with pytest.raises(InputError, match="reference 'A' is none of the groups"):
        compare(groups, "A")
    with pytest.raises(InputError, match="unknown correction 'hulm': did you mean 'holm'"):
        compare(groups, correction="hulm")
    with pytest.raises(InputError, match="level is 5, but must be in"):
        compare(groups, level=5)


def test_a_table_marks_differences_and_corrects_over_all_of_it(groups):
    cells = {name: {0.1: g, 0.5: {k: v + 1 for k, v in g.items()}} for name, g in groups.items()}
    del cells["b"][0.5]
    made = table_of("T", cells, reference="a", heading=lambda d: f"density {d}", digits=1)
    assert made["columns"] == ["Method", "density 0.1", "density 0.5"]
    assert [[text.endswith("*") for text in row[1:]] for row in made["rows"]] == [
        [False, False], [False, False], [True, True],
    ]  # fmt: skip
    assert made["rows"][1][2] == "-"
    assert made["note"].startswith("Mean ± 95 % interval of 8 seeds. * differs from a (p < 0.05")


def test_a_tables_reference_may_depend_on_the_row(groups):
    cells = {("x", "a"): {1: groups["a"]}, ("x", "c"): {1: groups["c"]}, ("y", "c"): {1: groups["c"]}}
    made = table_of("T", cells, reference=lambda row: (row[0], "a"), name=" on ".join)
    assert [row[1].endswith("*") for row in made["rows"]] == [False, True, False]
    assert "differs from its reference" in made["note"]
    assert "differs" not in table_of("T", cells)["note"]
    assert table_of("T", {"a": {1: [2.0]}})["note"] == "One seed, so no intervals."
