"""Claims of thesis 5: its numbers and orderings, and how they are measured from a study's rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

from regraft.studies.claims import Number, Order
from regraft.studies.papers.pruning.methods import Method
from regraft.studies.papers.pruning.published import DENSITIES, Line
from regraft.studies.statistics import by_seed
from regraft.studies.study import Rows

Samples = Callable[[Rows], dict[Hashable, float]]
"""One number for each seed."""

TOLERANCES = ((0.005, 3.0), (0.007, 2.5), (0.01, 2.0), (0.015, 1.5), (1.0, 1.0))
"""Points of accuracy by density, up to it. The thesis gives means of three runs without their spread; here
the standard deviation over seeds is 1 to 5 points at .5 %, .3 to 1 at 1 % and .1 to .3 from 10 % on
(docs/results/pruning.md), so that two means of three runs are this far apart by chance alone."""


def tolerance(density: float) -> float:
    """The tolerance at a density.

    >>> tolerance(0.005), tolerance(0.1)
    (3.0, 1.0)
    """
    return next(points for up_to, points in TOLERANCES if density <= up_to)


def samples(column: str, scale: float = 1.0, **wanted: object) -> Samples:
    """The mean of a column for each seed, of the rows with these values."""

    def measure(rows: Rows) -> dict[Hashable, float]:
        return by_seed(rows.where(**wanted).rows, column, scale=scale)

    return measure


def accuracy(method: Method, density: float) -> Samples:
    """Test accuracy in percent of what a method found."""
    return samples("accuracy", 100.0, density=density, **method.wanted)


def difference(a: Samples, b: Samples) -> Samples:
    """Of each seed that both have."""

    def measure(rows: Rows) -> dict[Hashable, float]:
        above, below = a(rows), b(rows)
        return {seed: above[seed] - below[seed] for seed in above if seed in below}

    return measure


def constant(value: float, like: Samples) -> Samples:
    """The same number for each seed that ``like`` has."""
    return lambda rows: dict.fromkeys(like(rows), value)


def numbers(lines: Iterable[Line], source: str) -> list[Number]:
    """Every number of one of the thesis's tables."""
    return [
        Number(
            f"{line.method.name}, density {100 * density:g} %",
            source,
            line.at(density),
            tolerance(density),
            accuracy(line.method, density),
        )
        for line in lines
        for density in DENSITIES
    ]


def better(
    source: str,
    a: Method,
    b: Method,
    density: float = 0.005,
    *,
    published: float | None = None,
    text: str | None = None,
) -> Order:
    """That one method finds better networks than another, seed by seed."""
    return Order(
        text or f"{a.name} above {b.name}, density {100 * density:g} %",
        source,
        accuracy(a, density),
        accuracy(b, density),
        published=published,
    )


def marks(lines: Iterable[Line], reference: Callable[[Line], Line], source: str) -> list[Order]:
    """The differences that the thesis marks as significant at the lowest density; the reports' tables mark
    those of every density, and a test of each of a hundred would hardly leave one of them standing."""
    found = []
    for line in lines:
        other = reference(line)
        gain = line.accuracy[0] - other.accuracy[0]
        if line.marked[0] and line is not other and gain:
            above, below = (line, other) if gain > 0 else (other, line)
            found.append(
                better(source, above.method, below.method, DENSITIES[0], published=round(abs(gain), 2))
            )
    return found
