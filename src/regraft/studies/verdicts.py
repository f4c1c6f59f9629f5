"""Whether what a paper says holds in the rows that a study measured.

Orderings are tested, with Holm's correction over all orderings of one study; numbers are compared where the
preset is as large as the paper's. Every verdict says why in a sentence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from regraft.studies.catalogue import preset as preset_of
from regraft.studies.claims import NOT_REPRODUCED, OUT_OF_SCALE, REPRODUCED, Claim, Number, Order
from regraft.studies.statistics import Samples, Summary, Test, holm, paired, summary, welch
from regraft.studies.statistics.significance import p_text
from regraft.studies.study import Rows, Study


@dataclass(frozen=True)
class Verdict:
    """A claim and what became of it.

    Attributes:
        claim: what was published.
        verdict: ``"reproduced"``, ``"not reproduced"`` or ``"out of scale"``.
        mean: measured, in the claim's unit; of an ordering, the mean difference better minus worse. None
            where nothing was measured.
        interval: the mean's 95 % confidence interval; None below two samples.
        n: samples; pairs, or the smaller of the two groups, of an ordering.
        p: of an ordering: two-sided, corrected for all orderings of the study; None where there is none.
        why: a sentence.
        means: of an ordering: the means of better and of worse.
    """

    claim: Claim
    verdict: str
    mean: float | None
    interval: tuple[float, float] | None
    n: int
    p: float | None
    why: str
    means: tuple[float, float] | None = None

    @property
    def measured(self) -> str:
        """For tables: mean ± half the interval, with the unit; ``-`` where nothing was measured."""
        if self.mean is None:
            return "-"
        sign = "+" if isinstance(self.claim, Order) else ""
        half = "" if self.interval is None else f" ± {_short((self.interval[1] - self.interval[0]) / 2)}"
        return f"{_short(self.mean, sign)}{half}{_unit(self.claim)}"

    @property
    def published(self) -> str:
        """For tables: the published number or difference with its unit, or ``better``."""
        if isinstance(self.claim, Number):
            return f"{_short(self.claim.published)}{_unit(self.claim)}"
        if self.claim.published is None:
            return "better"
        return f"{_short(self.claim.published, '+')}{_unit(self.claim)}"

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        kind = "number" if isinstance(self.claim, Number) else "order"
        return {
            "kind": kind, "text": self.claim.text, "source": self.claim.source, "unit": self.claim.unit,
            "published": self.claim.published, "verdict": self.verdict, "mean": self.mean,
            "interval": None if self.interval is None else list(self.interval), "n": self.n, "p": self.p,
            "why": self.why,
        }  # fmt: skip


def verdicts(study: Study, rows: Rows) -> list[Verdict]:
    """All claims of a study, judged together, in their order.

    Raises:
        InputError: the rows are of a preset that the study has not.
    """
    comparable = preset_of(study, rows.preset).comparable
    tests = {i: _test(c, rows) for i, c in enumerate(study.claims) if isinstance(c, Order)}
    judged = [
        i for i, found in tests.items() if found is not None and _in_scale(study.claims[i], rows.preset)
    ]
    p = dict(zip(judged, holm([_p(tests[i]) for i in judged]), strict=True))
    return [
        _number(claim, rows, comparable) if isinstance(claim, Number)
        else _order(claim, rows, tests[i], p.get(i), len(judged))
        for i, claim in enumerate(study.claims)
    ]  # fmt: skip


def judge(claim: Claim, rows: Rows, *, comparable: bool = False) -> Verdict:
    """One claim by itself, without correction for others.

    Args:
        rows: the study's table.
        comparable: whether the preset is as large as the paper's; the claim may say otherwise itself.

    >>> from regraft.studies import Number, Order
    >>> measured = [("a", 98.1), ("a", 98.3), ("b", 91.0), ("b", 92.0)]
    >>> rows = Rows([{"m": m, "acc": x} for m, x in measured], [], "paper")
    >>> claim = Number("a", "table 1", 98.5, 0.5, lambda r: r.where(m="a").column("acc"))
    >>> judge(claim, rows, comparable=True).why
    '98.2 % is within 0.5 of the published 98.5 %.'
    >>> of = lambda name: lambda r: r.where(m=name).column("acc")
    >>> judge(Order("a beats b", "table 1", of("a"), of("b")), rows).verdict
    'reproduced'
    """
    if isinstance(claim, Number):
        return _number(claim, rows, comparable)
    found = _test(claim, rows)
    return _order(claim, rows, found, None if found is None else _p(found), 1)


# --- numbers


def _number(claim: Number, rows: Rows, comparable: bool) -> Verdict:
    found = summary(_samples(claim.measure, rows))
    if claim.comparable is not None:
        comparable = rows.preset in claim.comparable
    verdict, why = _judge_number(claim, found, rows, comparable)
    return Verdict(claim, verdict, found.mean if found.n else None, _interval(found), found.n, None, why)


def _judge_number(claim: Number, found: Summary, rows: Rows, comparable: bool) -> tuple[str, str]:
    if not found.n:
        return OUT_OF_SCALE, _nothing(rows)
    unit, mean, published = _unit(claim), _short(found.mean), _short(claim.published)
    if not comparable:
        return OUT_OF_SCALE, (
            f"Measured {mean}{unit} where {published}{unit} was published, but the preset '{rows.preset}' is "
            "smaller than the original, so the two are not held against each other."
        )
    distance = found.mean - claim.published
    tolerance = _short(claim.tolerance)
    if abs(distance) <= claim.tolerance * (1 + 1e-9):
        return REPRODUCED, f"{mean}{unit} is within {tolerance} of the published {published}{unit}."
    side = "above" if distance > 0 else "below"
    holds = found.n > 1 and found.low <= claim.published <= found.high
    though = ", though the interval holds the published number" if holds else ""
    return NOT_REPRODUCED, (
        f"{mean}{unit} is {_short(abs(distance))} {side} the published {published}{unit}, more than the "
        f"tolerance of {tolerance}{though}."
    )


# --- orderings


def _order(claim: Order, rows: Rows, tested: _Tested | None, p: float | None, together: int) -> Verdict:
    if tested is None or math.isnan(tested.test.difference):
        return Verdict(claim, OUT_OF_SCALE, None, None, 0, None, _nothing(rows))
    test = tested.test
    # the test is shifted where the claim is "no worse than by so much"
    shift = min(claim.least, 0.0)
    difference = test.difference + shift
    interval = None if math.isnan(test.low) else (test.low + shift, test.high + shift)
    shown = f"{_short(difference, '+')}{_unit(claim)}"
    if not _in_scale(claim, rows.preset):
        p, verdict = None, OUT_OF_SCALE
        why = f"The difference is {shown} here, but the preset '{rows.preset}' is too small to judge it."
    elif p is None or math.isnan(p):
        p, verdict = None, OUT_OF_SCALE
        why = f"The difference is {shown}, but one sample each cannot tell it from chance: run more seeds."
    else:
        verdict, why = _judge_order(claim, test, difference, p, together)
    return Verdict(
        claim,
        verdict,
        difference,
        interval,
        min(test.n),
        p,
        why,
        tested.means,
    )


def _judge_order(claim: Order, test: Test, difference: float, p: float, together: int) -> tuple[str, str]:
    how = "paired" if test.method == "paired" else "Welch"
    said = f"{how}, n = {min(test.n)}, p {p_text(p)}" + (" corrected" if together > 1 else "")
    shown = f"{_short(abs(difference))}{_unit(claim)}"
    side = "better" if difference > 0 else "worse"
    if claim.least < 0:
        bound = f"no worse than by {_short(-claim.least)}{_unit(claim)}"
        if p >= claim.level:
            return NOT_REPRODUCED, f"Not sure to be {bound}: {shown} {side} on average ({said})."
        if test.difference > 0:
            return REPRODUCED, f"It is {bound}: {shown} {side} on average ({said})."
        return NOT_REPRODUCED, f"Worse by {shown}, more than allowed ({said})."
    if p >= claim.level:
        return NOT_REPRODUCED, f"Not told apart: {shown} {side} on average ({said})."
    if difference < 0:
        return NOT_REPRODUCED, f"The other way round: worse by {shown} ({said})."
    if difference < claim.least:
        return (
            NOT_REPRODUCED,
            f"Better by {shown} ({said}), less than the {_short(claim.least)}{_unit(claim)} claimed.",
        )
    return REPRODUCED, f"Better by {shown} ({said})."


@dataclass(frozen=True)
class _Tested:
    """An ordering's test and the means of better and of worse, from samples that are measured once."""

    test: Test
    means: tuple[float, float]


def _test(claim: Claim, rows: Rows) -> _Tested | None:
    assert isinstance(claim, Order)
    better, worse = _samples(claim.better, rows), _samples(claim.worse, rows)
    if not len(better) or not len(worse):
        return None
    means = summary(better).mean, summary(worse).mean
    shift = min(claim.least, 0.0)
    if shift:
        better = (
            {k: v - shift for k, v in better.items()}
            if isinstance(better, Mapping)
            else [v - shift for v in better]
        )
    # a failed cell can leave fewer samples on one side; then they cannot be paired by place
    if isinstance(better, Mapping) and isinstance(worse, Mapping):
        pairs = sum(seed in worse for seed in better) > 1
    else:
        sequences = not isinstance(better, Mapping) and not isinstance(worse, Mapping)
        pairs = sequences and len(better) == len(worse)
    return _Tested(paired(better, worse) if claim.paired and pairs else welch(better, worse), means)


def _in_scale(claim: Claim, preset: str) -> bool:
    return not isinstance(claim, Order) or claim.scale is None or preset in claim.scale


def _p(tested: _Tested | None) -> float:
    return math.nan if tested is None else tested.test.p


# --- both


def _samples(measure: Callable[[Rows], Samples], rows: Rows) -> Samples:
    """What the claim measures; nothing where it stumbles over rows that are not there yet."""
    try:
        return measure(rows)
    except (LookupError, ValueError, ArithmeticError, TypeError):
        if rows.missing or not rows.rows:
            return []
        raise


def _nothing(rows: Rows) -> str:
    if rows.missing:
        return f"Not measured: {rows.missing} cells of the preset '{rows.preset}' are not done."
    return f"Not measured: the preset '{rows.preset}' does not go there."


def _interval(found: Summary) -> tuple[float, float] | None:
    return None if math.isnan(found.low) else (found.low, found.high)


def _short(x: float, sign: str = "") -> str:
    """Two decimals at most; three significant digits below 1."""
    if x == 0 or abs(x) >= 1:
        text = f"{x:{sign}.2f}" if abs(x) < 1000 else f"{x:{sign},.0f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{x:{sign}.3g}"


def _unit(claim: Claim) -> str:
    return f" {claim.unit}" if claim.unit else ""
