"""What a paper says, and whether the measured rows agree.

A claim is a number or an ordering. Its verdict is ``reproduced``, ``not reproduced`` or ``out of scale``: the
preset is too small to compare a number, or the rows that it needs are not there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from regraft.studies.statistics.describe import Samples

REPRODUCED, NOT_REPRODUCED, OUT_OF_SCALE = "reproduced", "not reproduced", "out of scale"


@dataclass(frozen=True)
class Number:
    """A published number.

    Attributes:
        text: what it is: ``"SynFlow at density .5 %"``.
        source: where it stands: ``"thesis 5, table 5.1"``.
        published: the number, in the unit that ``measure`` returns.
        tolerance: largest distance of the measured mean that counts as reproduced, same unit.
        measure: the samples (one for each seed) from the study's rows (a ``Rows``); empty where it has none.
            ``statistics.by_seed`` makes them of rows.
        unit: shown behind the numbers.
        comparable: presets at which the number may be compared; None leaves it to the preset.
    """

    text: str
    source: str
    published: float
    tolerance: float
    measure: Callable[[Any], Samples]
    unit: str = "%"
    comparable: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Order:
    """A published ordering: one thing is better than another.

    Attributes:
        text: ``"magnitude merges better than average"``.
        source: where it stands.
        better, worse: samples from the study's rows; higher is better. Mappings from seeds are paired by
            their keys.
        paired: whether they belong together one by one (same seed); else, or where sequences are of
            different lengths, Welch's test.
        published: the difference as the paper has it, where it gives one.
        least: the difference that must at least be there, in the samples' unit. Below 0 it claims "no worse
            than by so much", and that is what is tested.
        level: the p-value below which a difference counts.
        scale: presets at which the ordering may be judged; None for all.
    """

    text: str
    source: str
    better: Callable[[Any], Samples]
    worse: Callable[[Any], Samples]
    paired: bool = True
    published: float | None = None
    least: float = 0.0
    level: float = 0.05
    scale: tuple[str, ...] | None = None
    unit: str = "%"


Claim = Number | Order
