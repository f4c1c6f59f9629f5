"""Correction of p-values when many comparisons are made at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from regraft.errors import InputError, unknown
from regraft.studies.statistics.describe import Vector


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: below ``level``, they hold the chance of any false finding to ``level``.

    Sorted upwards, the i-th of m is multiplied by m - i + 1; then none is below the one before it, and none
    above 1 (Holm, "A simple sequentially rejective multiple test procedure", 1979). NaN, a test that could
    not be made, stays NaN and does not count.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]

    Raises:
        InputError: a number outside [0, 1].
    """
    return _adjusted(p, lambda sorted_: np.maximum.accumulate(sorted_ * np.arange(len(sorted_), 0, -1)))


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p-values: they hold the share of false ones among the findings.

    Sorted upwards, the i-th of m is multiplied by m / i; then none is above the one after it ("Controlling
    the false discovery rate", 1995). It finds more than Holm, and promises less. NaN stays NaN and does not
    count.

    >>> benjamini_hochberg([0.01, 0.04, 0.03])
    [0.03, 0.04, 0.04]

    Raises:
        InputError: a number outside [0, 1].
    """

    def adjust(sorted_: Vector) -> Vector:
        m = len(sorted_)
        scaled = sorted_ * m / np.arange(1, m + 1)
        return np.minimum.accumulate(scaled[::-1])[::-1]

    return _adjusted(p, adjust)


def _none(p: Sequence[float]) -> list[float]:
    return _adjusted(p, lambda sorted_: sorted_)


CORRECTIONS: Mapping[str, Callable[[Sequence[float]], list[float]]] = {
    "holm": holm,
    "benjamini-hochberg": benjamini_hochberg,
    "none": _none,
}
"""Ways to correct by name."""


def corrected(p: Sequence[float], correction: str = "holm") -> list[float]:
    """Adjusted p-values by the name of the correction.

    Raises:
        InputError: an unknown name, or a number outside [0, 1].
    """
    if correction not in CORRECTIONS:
        raise unknown("correction", correction, CORRECTIONS)
    return CORRECTIONS[correction](p)


def _adjusted(p: Sequence[float], adjust: Callable[[Vector], Vector]) -> list[float]:
    given: Vector = np.asarray(p, dtype=np.float64)
    known = ~np.isnan(given)
    wrong = given[known & ~((given >= 0) & (given <= 1))]
    if len(wrong):
        raise InputError(f"a p-value is {float(wrong[0])!r}, but must be in [0, 1]")
    order = np.argsort(given[known], kind="stable")
    values = np.empty(len(order))
    values[order] = np.minimum(adjust(given[known][order]), 1.0)
    out = np.full(len(given), np.nan)
    out[known] = values
    return [float(v) for v in out]
