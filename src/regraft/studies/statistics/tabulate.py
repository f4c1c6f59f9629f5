"""Tables of means with intervals, in which significant differences are marked."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from regraft.report import Table
from regraft.studies.statistics.compare import Comparison, correct, tell_apart
from regraft.studies.statistics.describe import Samples, summary

Reference = Hashable | Callable[[Any], Hashable]


def table_of(
    title: str,
    cells: Mapping[Any, Mapping[Any, Samples]],
    *,
    reference: Reference | None = None,
    corner: str = "Method",
    name: Callable[[Any], str] = str,
    heading: Callable[[Any], str] = str,
    correction: str = "holm",
    level: float = 0.05,
    digits: int = 2,
    note: str = "",
) -> Table:
    """A table with a row for each method and a column for each setting, such as a density.

    A cell shows mean ± half the 95 % interval, and an asterisk where the method differs significantly from
    the reference in the same column, as the tables of thesis 5 do. All marked comparisons of the table are
    corrected together.

    Args:
        cells: samples by row and column; a missing one shows as ``-``.
        reference: the row that each other row is compared with; a function gives the row to compare a row
            with (itself or a row that is not there: no comparison); None for no marks.
        corner: what the rows are.
        name, heading: how a row and a column are called.
        correction: ``"holm"``, ``"benjamini-hochberg"`` or ``"none"``.
        level: below which a corrected p-value is marked, in (0, 1).
        digits: behind the point.
        note: stands before the sentence that explains the table.

    >>> dense, sparse = {0: 98.0, 1: 98.2, 2: 98.1}, {0: 95.1, 1: 95.2, 2: 95.0}
    >>> cells = {"dense": {"MNIST": dense}, "sparse": {"MNIST": sparse}}
    >>> t = table_of("Accuracy (%)", cells, reference="dense")
    >>> t["columns"], t["rows"]
    (['Method', 'MNIST'], [['dense', '98.10 ± 0.25'], ['sparse', '95.10 ± 0.25 *']])
    >>> t["note"]
    'Mean ± 95 % interval of 3 seeds. * differs from dense (p < 0.05, paired where seeds are shared, Holm).'

    Raises:
        InputError: the correction is unknown.
    """
    columns = list(dict.fromkeys(c for row in cells.values() for c in row))
    found = [
        Comparison(
            (row, column), (other, column), tell_apart(samples[column], cells[other][column]), math.nan, level
        )
        for row, samples in cells.items()
        for column in samples
        if (other := _other(reference, row)) in cells and other != row and column in cells[other]
    ]
    marked = {c.a for c in correct(found, correction) if c.significant}
    rows = [
        [name(row), *(_cell(samples.get(c), digits, (row, c) in marked) for c in columns)]
        for row, samples in cells.items()
    ]
    compared = "" if reference is None else _compared(reference, name, correction, level)
    told = " ".join(s for s in (note, _repetitions(cells), compared) if s)
    return {"title": title, "columns": [corner, *(heading(c) for c in columns)], "rows": rows, "note": told}


def _other(reference: Reference | None, row: Any) -> Hashable:
    return reference(row) if callable(reference) else reference


def _cell(samples: Samples | None, digits: int, marked: bool) -> str:
    return summary(samples or []).text(digits) + (" *" if marked else "")


def _repetitions(cells: Mapping[Any, Mapping[Any, Samples]]) -> str:
    counts = {len(samples) for row in cells.values() for samples in row.values()} - {0}
    if not counts:
        return ""
    least, most = min(counts), max(counts)
    if most == 1:
        return "One seed, so no intervals."
    n = f"{least}" if least == most else f"{least} to {most}"
    return f"Mean ± 95 % interval of {n} seeds."


def _compared(reference: Reference, name: Callable[[Any], str], correction: str, level: float) -> str:
    how = {"holm": "Holm", "benjamini-hochberg": "Benjamini-Hochberg", "none": "not corrected"}[correction]
    what = "its reference" if callable(reference) else name(reference)
    return f"* differs from {what} (p < {level:g}, paired where seeds are shared, {how})."
