"""Rates that change over training, against the papers' formulas written down a second time."""

import dataclasses
import math
import pickle
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft import schedules
from regraft.errors import InputError
from regraft.schedules import Progress

# name -> (default member, formula of the paper with its defaults as a function of (done, total))
CONFORMANCE = {
    "constant": (schedules.Constant(), lambda i, n: 0.3),
    "ldv": (schedules.LinearDecreasing(), lambda i, n: 0.01 + (0.3 - 0.01) * (n - i) / n),
    "osv": (
        schedules.Oscillating(),
        lambda i, n: (0.3 + 0.01) / 2 + (0.3 - 0.01) / 2 * math.cos(2 * math.pi * i / (2 * n / (3 + 2 * 1))),
    ),
    "exd": (schedules.ExponentialDecay(), lambda i, n: 0.3 * (1 - 0.01) ** i),
    "cosine": (schedules.Cosine(), lambda i, n: 0.3 / 2 * (1 + math.cos(i * math.pi / n))),
    "exponential": (
        schedules.Exponential(),
        lambda i, n: 0.5 * (math.exp(-5 * i / n) - math.exp(-5)) / (1 - math.exp(-5)),
    ),
}
OTHERS = {schedules.Cubic: lambda i, n: 0.1 + 0.9 * (1 - i / n) ** 3}
NEEDS_TOTAL = {"ldv", "osv", "cosine", "exponential"}
MONOTONE = {"ldv", "exd", "cosine", "exponential"}


def test_every_member_is_in_the_table():
    assert set(schedules.RATES) == set(CONFORMANCE)
    members = {c for c in vars(schedules).values() if isinstance(c, type) and dataclasses.is_dataclass(c)}
    assert members == {type(m) for m, _ in CONFORMANCE.values()} | set(OTHERS)


@pytest.mark.parametrize("name", CONFORMANCE)
@given(st.integers(1, 600), st.data())
def test_it_is_the_papers_formula(name, total, data):
    schedule, formula = CONFORMANCE[name]
    done = data.draw(st.integers(0, total))
    assert schedules.by_name(name) == schedule
    assert schedule(Progress(done, total)) == pytest.approx(formula(done, total), abs=1e-12)


@given(st.integers(1, 600), st.data())
def test_cubic_is_the_papers_formula(total, data):
    done = data.draw(st.integers(0, total))
    assert schedules.Cubic()(Progress(done, total)) == pytest.approx(OTHERS[schedules.Cubic](done, total))


@pytest.mark.parametrize("name", CONFORMANCE)
@given(high=st.floats(0.05, 1.0), share=st.floats(0.0, 1.0), total=st.integers(1, 200))
def test_values_stay_between_the_ends(name, high, share, total):
    low = high * share
    kind = type(CONFORMANCE[name][0])
    schedule = kind(high) if name in ("constant", "exd") else kind(high, low)
    floor = 0.0 if name in ("constant", "exd") else low
    values = [schedule(Progress(i, total)) for i in range(total + 1)]
    assert all(floor - 1e-12 <= v <= high + 1e-12 for v in values)
    assert values[0] == pytest.approx(high)
    if name in NEEDS_TOTAL:
        assert values[-1] == pytest.approx(low)
    if name in MONOTONE:
        assert all(a >= b - 1e-12 for a, b in pairwise(values))


@pytest.mark.parametrize("k", [0, 1, 2, 5])
def test_oscillating_turns_as_often_as_k_says(k):
    total = 1000
    values = [schedules.Oscillating(k=k)(Progress(i, total)) for i in range(total + 1)]
    steps = [b - a for a, b in pairwise(values)]
    turns = sum(a * b < 0 for a, b in pairwise(steps))
    assert turns == 2 + 2 * k
    assert values[-1] == pytest.approx(0.01)


@pytest.mark.parametrize("name", CONFORMANCE)
def test_who_needs_the_end_says_so(name):
    schedule = CONFORMANCE[name][0]
    if name in NEEDS_TOTAL:
        with pytest.raises(InputError, match=r"needs to know how long training lasts.*total=") as caught:
            schedule(Progress(3))
        assert repr(schedule) in str(caught.value)
    else:
        assert schedule(Progress(3)) == schedule(Progress(3, 10))


@pytest.mark.parametrize("name", sorted(NEEDS_TOTAL))
def test_past_the_end_the_last_value_stays(name):
    schedule = CONFORMANCE[name][0]
    assert schedule(Progress(11, 10)) == schedule(Progress(10, 10))
    assert schedule(Progress(0, 0)) == schedule(Progress(10, 10))


@pytest.mark.parametrize("schedule", [m for m, _ in CONFORMANCE.values()] + [schedules.Cubic()])
def test_members_are_plain_data(schedule):
    assert eval(repr(schedule), vars(schedules)) == schedule  # noqa: S307
    assert pickle.loads(pickle.dumps(schedule)) == schedule  # noqa: S301
    assert hash(schedule) == hash(type(schedule)())
    with pytest.raises(AttributeError):
        schedule.start = 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.Constant(math.nan), "Constant: value is nan, but must be a finite number"),
        (lambda: schedules.LinearDecreasing(math.inf), "LinearDecreasing: high is inf"),
        (lambda: schedules.LinearDecreasing("0.3"), "LinearDecreasing: high is '0.3'"),
        (lambda: schedules.Oscillating(k=-1), "Oscillating: k is -1, but must be a non-negative integer"),
        (lambda: schedules.Oscillating(k=0.5), "Oscillating: k is 0.5, but must be a non-negative integer"),
        (lambda: schedules.ExponentialDecay(0.3, 1.5), r"interest is 1.5, but must be in \[0, 1\)"),
        (lambda: schedules.ExponentialDecay(0.3, -0.1), r"interest is -0.1, but must be in \[0, 1\)"),
        (lambda: schedules.Exponential(steepness=0.0), "steepness is 0.0, but must be positive"),
    ],
)
def test_impossible_settings_are_refused_at_once(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_unknown_names_get_a_suggestion():
    with pytest.raises(InputError, match="unknown rate 'cosin': did you mean 'cosine'"):
        schedules.by_name("cosin")
