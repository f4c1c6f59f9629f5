"""A few numbers that stand for many: mean, spread, confidence interval, median."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.errors import InputError

Samples = Sequence[float] | Mapping[Any, float]
"""One number for each repetition; a mapping says which repetition (seed), so that two can be paired."""

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """What is known of a mean.

    Attributes:
        n: samples that are finite.
        mean, median: NaN where there are no samples.
        sd: standard deviation of the samples (n - 1 in the denominator); NaN below two samples.
        low, high: ends of Student's confidence interval of the mean; NaN below two samples.
        confidence: of the interval, in (0, 1).
        missing: samples that were left out because they are NaN or infinite.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float
    median: float
    confidence: float = 0.95
    missing: int = 0

    @property
    def half(self) -> float:
        """Half the width of the interval: what stands behind the plus-minus sign."""
        return (self.high - self.low) / 2

    def text(self, digits: int = 2) -> str:
        """For tables: ``97.31 ± 0.42``, without the interval where there is none.

        >>> summary([97.0, 97.5, 97.4]).text(), summary([97.0]).text(1), summary([]).text()
        ('97.30 ± 0.66', '97.0', '-')
        """
        if not self.n:
            return "-"
        shown = f"{self.mean:.{digits}f}"
        return shown if math.isnan(self.half) else f"{shown} ± {self.half:.{digits}f}"

    def plain(self) -> dict[str, float | int | None]:
        """For JSON: what is not known is None."""
        found = {"n": self.n, "mean": self.mean, "sd": self.sd, "low": self.low, "high": self.high,
                 "median": self.median, "confidence": self.confidence, "missing": self.missing}  # fmt: skip
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in found.items()}


def summary(samples: Samples, confidence: float = 0.95) -> Summary:
    r"""Mean, standard deviation, median, and Student's confidence interval of the mean.

    mean ± t(n - 1, (1 + confidence) / 2) · sd / sqrt(n), which holds for samples of a normal distribution
    (Student, "The probable error of a mean", 1908). Equal samples have an interval of width 0.

    Args:
        samples: one number for each independent repetition; NaN and infinite ones are left out and counted.
        confidence: share of such intervals that hold the true mean, in (0, 1).

    >>> s = summary([1.0, 2.0, 3.0])
    >>> s.n, s.mean, s.sd, s.median, round(s.low, 3), round(s.high, 3)
    (3, 2.0, 1.0, 2.0, -0.484, 4.484)

    Raises:
        InputError: ``confidence`` outside (0, 1), or samples that are no numbers.
    """
    if not 0.0 < confidence < 1.0:
        raise InputError(f"confidence is {confidence!r}, but must be in (0, 1): 0.95 is usual")
    every = vector(samples)
    x = every[np.isfinite(every)]
    n, missing = len(x), len(every) - len(x)
    nan = math.nan
    if not n:
        return Summary(0, nan, nan, nan, nan, nan, confidence, missing)
    mean, median = mean_of(x), float(np.median(x))
    if n == 1:
        return Summary(1, mean, nan, nan, nan, median, confidence, missing)
    from scipy import stats  # half a second to import

    sd = deviation(x)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half, median, confidence, missing)


def by_seed(
    rows: Iterable[Mapping[str, Any]], column: str, seed: str = "seed", scale: float = 1.0
) -> dict[Hashable, float]:
    """One sample for each seed: the mean of the seed's rows in a column.

    Rows of one seed, such as the 25 merges of one pair of networks, are no independent repetitions: counted
    one by one they would make every interval too narrow.

    Args:
        rows: of a study's table (``Rows.rows``); rows that lack the column are left out.
        column: numbers.
        seed: the column that tells repetitions apart.
        scale: multiplies the numbers; 100 makes percent of accuracies.

    >>> rows = [{"seed": 0, "acc": 0.75}, {"seed": 0, "acc": 0.25}, {"seed": 1, "acc": 0.5}]
    >>> by_seed(rows, "acc", scale=100)
    {0: 50.0, 1: 50.0}
    """
    found: dict[Hashable, list[float]] = {}
    for row in rows:
        if row.get(column) is not None:
            found.setdefault(row.get(seed), []).append(float(row[column]))
    return {k: scale * math.fsum(v) / len(v) for k, v in found.items()}


def vector(samples: Samples) -> Vector:
    """Samples as float64 [n].

    Raises:
        InputError: they are no numbers.
    """
    values = list(samples.values()) if isinstance(samples, Mapping) else samples
    try:
        x = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"samples must be numbers, but are {str(values)[:80]} ({error})") from error
    if x.ndim != 1:
        raise InputError(f"samples must be a list of numbers, but have the shape {x.shape}")
    return x


def mean_of(x: Vector) -> float:
    """The mean, exactly rounded; never outside the samples' range."""
    return min(max(math.fsum(x) / len(x), float(x.min())), float(x.max()))


def deviation(x: Vector) -> float:
    """The standard deviation (n - 1); exactly 0 where the samples differ by rounding only."""
    spread = float(x.max() - x.min())
    if spread <= 1e-13 * float(np.abs(x).max()):
        return 0.0
    return float(np.std(x, ddof=1))
