"""Whether two means differ: Welch's test, and the paired test for repetitions that share their seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from regraft.errors import InputError
from regraft.studies.statistics.describe import Samples, Vector, deviation, mean_of, summary, vector


@dataclass(frozen=True)
class Test:
    """The outcome of a test of the hypothesis that two means are equal.

    Attributes:
        method: ``"welch"`` or ``"paired"``.
        difference: mean of the first minus mean of the second.
        low, high: ends of the difference's confidence interval; NaN where there is none.
        p: two-sided p-value, not corrected; NaN where there are too few samples.
        effect: the difference in standard deviations, corrected for small samples (Hedges' g); of the
            differences for paired samples. Infinite where nothing varies, NaN where it is not known.
        n: samples of the first and of the second; pairs stand twice.
        statistic, df: Student's t and its degrees of freedom.
    """

    method: str
    difference: float
    low: float
    high: float
    p: float
    effect: float
    n: tuple[int, int]
    statistic: float
    df: float

    __test__ = False  # no class of tests, whatever its name

    @property
    def told(self) -> str:
        """For a sentence: ``paired test, n = 5, p = 0.012``.

        >>> welch([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]).told
        "Welch's test, n = 3 and 3, p = 0.021"
        """
        name = "Welch's test" if self.method == "welch" else "paired test"
        n = f"{self.n[0]}" if self.method == "paired" else f"{self.n[0]} and {self.n[1]}"
        return f"{name}, n = {n}, p {p_text(self.p)}"


def p_text(p: float) -> str:
    """A p-value as one reads it.

    >>> p_text(0.0123456), p_text(1e-9), p_text(float("nan"))
    ('= 0.012', '< 0.001', 'unknown (too few samples)')
    """
    if math.isnan(p):
        return "unknown (too few samples)"
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def welch(a: Samples, b: Samples, confidence: float = 0.95) -> Test:
    """Welch's test of two independent groups of samples, whose spreads may differ.

    t = (mean a - mean b) / sqrt(va / na + vb / nb) with the degrees of freedom of Welch and Satterthwaite
    (Welch, "The generalization of Student's problem", 1947). Where nothing varies at all, equal means have
    p = 1 and others p = 0.

    Args:
        a, b: one number for each independent repetition; NaN and infinite ones are left out.
        confidence: of the interval, in (0, 1).

    >>> test = welch([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    >>> test.difference, round(test.p, 4), round(test.effect, 2)
    (-3.0, 0.0213, -2.39)

    Raises:
        InputError: ``confidence`` outside (0, 1), or samples that are no numbers.
    """
    x, y = _finite(vector(a)), _finite(vector(b))
    nan, n = math.nan, (len(x), len(y))
    if not (len(x) and len(y)):
        return Test("welch", nan, nan, nan, nan, nan, n, nan, nan)
    difference = mean_of(x) - mean_of(y)
    if min(n) < 2:
        return Test("welch", difference, nan, nan, nan, nan, n, nan, nan)
    sx, sy = deviation(x), deviation(y)
    if sx == sy == 0.0:
        return _certain("welch", difference, n, sum(n) - 2)
    vx, vy = sx**2 / n[0], sy**2 / n[1]
    df = (vx + vy) ** 2 / (vx**2 / (n[0] - 1) + vy**2 / (n[1] - 1))
    pooled = math.sqrt(((n[0] - 1) * sx**2 + (n[1] - 1) * sy**2) / (sum(n) - 2))
    effect = _small_sample(sum(n) - 2) * difference / pooled
    return _student("welch", difference, math.sqrt(vx + vy), df, confidence, effect, n)


def paired(a: Samples, b: Samples, confidence: float = 0.95) -> Test:
    """The paired test of samples that belong together one by one.

    Student's test of the differences; what a seed does to both, such as an easy choice of samples, cancels.
    Pairs in which one is NaN or infinite are left out.

    Args:
        a, b: mappings are paired by their keys, and keys of one alone are left out; sequences by place.
        confidence: of the interval, in (0, 1).

    >>> test = paired([1.0, 2.0, 3.0], [1.5, 2.6, 3.4])
    >>> round(test.difference, 2), round(test.p, 4), test.n
    (-0.5, 0.0131, (3, 3))
    >>> paired({"seed 0": 1.0, "seed 1": 2.0}, {"seed 1": 1.0, "seed 0": 1.0}).difference
    0.5

    Raises:
        InputError: sequences of different lengths, a mapping with a sequence, ``confidence`` outside (0, 1).
    """
    first, second = _pairs(a, b)
    x = _finite(first - second)
    n, nan = (len(x), len(x)), math.nan
    if len(x) < 2:
        return Test("paired", mean_of(x) if len(x) else nan, nan, nan, nan, nan, n, nan, nan)
    found, scale = summary(x.tolist(), confidence), float(np.abs(first).max() + np.abs(second).max())
    # differences of equal numbers may differ by the rounding of the numbers themselves
    sd = 0.0 if float(np.ptp(x)) <= 1e-13 * scale else found.sd
    if sd == 0.0:
        return _certain("paired", 0.0 if abs(found.mean) <= 1e-13 * scale else found.mean, n, n[0] - 1)
    effect = _small_sample(n[0] - 1) * found.mean / sd
    return _student("paired", found.mean, sd / math.sqrt(n[0]), n[0] - 1, confidence, effect, n)


def _pairs(a: Samples, b: Samples) -> tuple[Vector, Vector]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        shared = [key for key in a if key in b]
        return vector([a[k] for k in shared]), vector([b[k] for k in shared])
    if isinstance(a, Mapping) or isinstance(b, Mapping):
        raise InputError(
            "one of the samples says its seeds and the other does not: give both as mappings, or neither"
        )
    x, y = vector(a), vector(b)
    if len(x) != len(y):
        raise InputError(
            f"paired samples must be as many, but are {len(x)} and {len(y)}: give mappings from seeds, or "
            "use Welch's test"
        )
    return x, y


def _finite(x: Vector) -> Vector:
    return x[np.isfinite(x)]


def _certain(method: str, difference: float, n: tuple[int, int], df: float) -> Test:
    """The limit of the test as all spread goes to nothing."""
    sure = math.copysign(math.inf, difference) if difference else 0.0
    return Test(method, difference, difference, difference, float(not difference), sure, n, sure, df)


def _student(
    method: str,
    difference: float,
    error: float,
    df: float,
    confidence: float,
    effect: float,
    n: tuple[int, int],
) -> Test:
    from scipy import stats  # half a second to import

    if not 0.0 < confidence < 1.0:
        raise InputError(f"confidence is {confidence!r}, but must be in (0, 1): 0.95 is usual")
    t = difference / error
    half = float(stats.t.ppf((1 + confidence) / 2, df)) * error
    p = float(2 * stats.t.sf(abs(t), df))
    return Test(method, difference, difference - half, difference + half, p, effect, n, t, df)


def _small_sample(df: float) -> float:
    """Hedges' exact correction of the upward bias of a standardised difference (1981)."""
    if df < 2:
        return math.nan  # the expectation does not exist
    return math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)
