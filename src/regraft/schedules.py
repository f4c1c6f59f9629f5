"""Numbers that change over training: (progress) -> number.

A schedule is a frozen dataclass; calling it with a ``Progress`` gives the number. The rates of evolution that
the theses use are here: Constant (SET), LinearDecreasing (LDV), Oscillating (OSV), ExponentialDecay (EXD),
Exponential (thesis 1's decay from one rate to another), Cosine (RigL) and Cubic (gradual pruning).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from regraft.errors import InputError, unknown


class Progress(NamedTuple):
    """How far something has come: ``done`` of ``total`` iterations (epochs or updates, as the caller counts).

    ``total`` is None where the end is not known; schedules that need the end then raise.
    """

    done: int
    total: int | None = None

    def fraction(self, schedule: object) -> float:
        """done / total in [0, 1].

        Raises:
            InputError: the total is not known.
        """
        if self.total is None:
            raise InputError(
                f"{schedule!r} needs to know how long training lasts: pass the total number of steps "
                "(Evolve(..., total=...)) or use Constant or ExponentialDecay"
            )
        return min(self.done / self.total, 1.0) if self.total else 1.0


Schedule = Callable[[Progress], float]


class _Checked:
    """Settings are checked when a schedule is made, not when training reaches it."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise _refusal(self, name, "must be a finite number")


def _refusal(schedule: object, name: str, expected: str) -> InputError:
    return InputError(f"{type(schedule).__name__}: {name} is {getattr(schedule, name)!r}, but {expected}")


@dataclass(frozen=True)
class Constant(_Checked):
    """The same value always: SET's zeta = 0.3 (Mocanu et al. 2018).

    >>> Constant()(Progress(7, 10))
    0.3
    """

    value: float = 0.3

    def __call__(self, progress: Progress) -> float:
        return self.value


@dataclass(frozen=True)
class LinearDecreasing(_Checked):
    """LDV: low + (high - low) * (total - done) / total (thesis 3, section 4.3; defaults 0.3 and 0.01).

    >>> round(LinearDecreasing()(Progress(5, 10)), 4)
    0.155
    """

    high: float = 0.3
    low: float = 0.01

    def __call__(self, progress: Progress) -> float:
        return self.low + (self.high - self.low) * (1.0 - progress.fraction(self))


@dataclass(frozen=True)
class Oscillating(_Checked):
    """OSV: (high + low) / 2 + (high - low) / 2 * cos(2 pi done / T), T = 2 total / (3 + 2k)
    (thesis 3, section 4.4; defaults 0.3, 0.01, k = 1). ``k`` is a non-negative integer that sets the number
    of oscillations: (3 + 2k) / 2 of them, hence the schedule starts high and ends low.

    >>> [round(Oscillating()(Progress(i, 10)), 3) for i in (0, 2, 10)]
    [0.3, 0.01, 0.01]
    """

    high: float = 0.3
    low: float = 0.01
    k: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k != int(self.k) or self.k < 0:
            raise _refusal(self, "k", "must be a non-negative integer")

    def __call__(self, progress: Progress) -> float:
        turns = progress.fraction(self) * (3 + 2 * self.k) / 2
        return (self.high + self.low) / 2 + (self.high - self.low) / 2 * math.cos(2 * math.pi * turns)


@dataclass(frozen=True)
class ExponentialDecay(_Checked):
    """EXD: start * (1 - interest) ** done (thesis 3, section 4.5; defaults 0.3 and 0.01).

    >>> round(ExponentialDecay(0.3, 0.01)(Progress(2)), 5)
    0.29403
    """

    start: float = 0.3
    interest: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.interest < 1.0:
            raise _refusal(self, "interest", "must be in [0, 1): the share lost at each iteration")

    def __call__(self, progress: Progress) -> float:
        return float(self.start * (1.0 - self.interest) ** progress.done)


@dataclass(frozen=True)
class Exponential(_Checked):
    """From ``start`` to ``end`` by a constant factor per iteration, shifted to meet both ends exactly:
    v(t) = end + (start - end) * (e^(-a t) - e^(-a)) / (1 - e^(-a)) with t = done / total.

    Thesis 1 (section 7.5, figure 8) decays its evolution rate from 0.5 to 0 and its learning rate from 1
    to 0 exponentially; a pure exponential never reaches 0, so ``steepness`` a (default 5: e^-5 is 0.7 %)
    says how fast, and the remainder is subtracted.

    >>> rate = Exponential(0.5, 0.0)
    >>> rate(Progress(0, 10)), rate(Progress(10, 10))
    (0.5, 0.0)
    """

    start: float = 0.5
    end: float = 0.0
    steepness: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steepness <= 0.0:
            raise _refusal(self, "steepness", "must be positive")

    def __call__(self, progress: Progress) -> float:
        floor = math.exp(-self.steepness)
        t = progress.fraction(self)
        return self.end + (self.start - self.end) * (math.exp(-self.steepness * t) - floor) / (1.0 - floor)


@dataclass(frozen=True)
class Cosine(_Checked):
    """From ``start`` to ``end`` along half a cosine: end + (start - end) / 2 * (1 + cos(pi done / total))
    (Evci et al. 2020, arXiv:1911.11134, eq. 1).

    >>> round(Cosine(0.3)(Progress(5, 10)), 4)
    0.15
    """

    start: float = 0.3
    end: float = 0.0

    def __call__(self, progress: Progress) -> float:
        t = progress.fraction(self)
        return self.end + (self.start - self.end) / 2 * (1.0 + math.cos(math.pi * t))


@dataclass(frozen=True)
class Cubic(_Checked):
    """From ``start`` to ``end`` by a cubic that is steep first: end + (start - end) * (1 - done / total)^3
    (Zhu and Gupta 2017, arXiv:1710.01878, eq. 1, where it gives a sparsity).

    >>> Cubic(1.0, 0.1)(Progress(10, 10))
    0.1
    """

    start: float = 1.0
    end: float = 0.1

    def __call__(self, progress: Progress) -> float:
        return self.end + (self.start - self.end) * (1.0 - progress.fraction(self)) ** 3


RATES: dict[str, Callable[..., Schedule]] = {
    "constant": Constant,
    "ldv": LinearDecreasing,
    "osv": Oscillating,
    "exd": ExponentialDecay,
    "cosine": Cosine,
    "exponential": Exponential,
}


def by_name(name: str) -> Schedule:
    """The rate schedule called ``name`` with its paper's defaults, or an error with the nearest names.

    >>> by_name("exd")
    ExponentialDecay(start=0.3, interest=0.01)
    """
    if name not in RATES:
        raise unknown("rate", name, RATES)
    return RATES[name]()
