"""All methods against a reference, or each against each, with correction for the number of comparisons."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from regraft.errors import InputError, suggest
from regraft.studies.statistics.correct import corrected
from regraft.studies.statistics.describe import Samples
from regraft.studies.statistics.significance import Test, paired, welch


@dataclass(frozen=True)
class Comparison:
    """Two groups and what tells them apart.

    Attributes:
        a, b: their names; ``test`` is of a minus b.
        test: with its own p-value.
        p: corrected for all comparisons made at once; NaN where there are too few samples.
        level: below which ``p`` counts.
    """

    a: Any
    b: Any
    test: Test
    p: float
    level: float = 0.05

    @property
    def significant(self) -> bool:
        """Whether the two are told apart; never where there are too few samples."""
        return self.p < self.level


def tell_apart(a: Samples, b: Samples) -> Test:
    """The paired test where both say their seeds and share at least two and most of them, else Welch's.

    >>> tell_apart({0: 1.0, 1: 2.0}, {0: 1.5, 1: 2.75}).method, tell_apart([1.0, 2.0], [1.5, 2.75]).method
    ('paired', 'welch')
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        shared = sum(key in b for key in a)
        if shared >= 2 and 2 * shared > max(len(a), len(b)):
            return paired(a, b)
    return welch(a, b)


def compare(
    groups: Mapping[Any, Samples],
    reference: Hashable | None = None,
    *,
    correction: str = "holm",
    level: float = 0.05,
) -> list[Comparison]:
    """Compare all groups with a reference, or each with each.

    Args:
        groups: samples by name. Mappings from seeds are paired as ``tell_apart`` says.
        reference: name of the group that the others are compared with; None for each with each.
        correction: ``"holm"``, ``"benjamini-hochberg"`` or ``"none"``.
        level: below which a corrected p-value counts, in (0, 1).

    Returns:
        One for each pair, in the order of the groups.

    >>> groups = {"dense": [97.9, 98.0, 98.1], "magnitude": [97.8, 98.0, 98.1], "random": [90.1, 90.3, 89.9]}
    >>> [(c.a, round(c.test.difference, 2), c.significant) for c in compare(groups, "dense")]
    [('magnitude', -0.03, False), ('random', -7.9, True)]

    Raises:
        InputError: the reference is none of the groups, an unknown correction, or ``level`` outside (0, 1).
    """
    _check_level(level)
    if reference is not None and reference not in groups:
        raise InputError(
            f"the reference {reference!r} is none of the groups: {suggest(str(reference), map(str, groups))}"
        )
    if reference is None:
        pairs = list(combinations(groups, 2))
    else:
        pairs = [(name, reference) for name in groups if name != reference]
    found = [Comparison(a, b, tell_apart(groups[a], groups[b]), math.nan, level) for a, b in pairs]
    return correct(found, correction)


def correct(comparisons: Sequence[Comparison], correction: str = "holm") -> list[Comparison]:
    """The comparisons with their p-values corrected for being made together."""
    p = corrected([c.test.p for c in comparisons], correction)
    return [replace(c, p=value) for c, value in zip(comparisons, p, strict=True)]


def marks(comparisons: Iterable[Comparison], mark: str = "*") -> dict[Any, str]:
    """What stands behind each compared group in a table: a mark where it differs from the reference.

    >>> groups = {"dense": [97.9, 98.0, 98.1], "magnitude": [97.8, 98.0, 98.1], "random": [90.1, 90.3, 89.9]}
    >>> marks(compare(groups, "dense"))
    {'magnitude': '', 'random': '*'}
    """
    return {c.a: mark if c.significant else "" for c in comparisons}


def letters(comparisons: Sequence[Comparison]) -> dict[Any, str]:
    """A compact display of all comparisons of each with each: groups that share a letter are not told apart.

    By insertion and absorption (Piepho, "An algorithm for a letter-based representation of all-pairwise
    comparisons", 2004).

    >>> groups = {"dense": [97.9, 98.0, 98.1], "magnitude": [97.8, 98.0, 98.1], "random": [90.1, 90.3, 89.9]}
    >>> letters(compare(groups))
    {'dense': 'a', 'magnitude': 'a', 'random': 'b'}
    """
    names = list(dict.fromkeys(name for c in comparisons for name in (c.a, c.b)))
    columns: list[frozenset[Any]] = [frozenset(names)] if names else []
    for c in comparisons:
        if not c.significant:
            continue
        split = [part for s in columns for part in ((s - {c.a}, s - {c.b}) if {c.a, c.b} <= s else (s,))]
        unique = list(dict.fromkeys(split))
        columns = [s for s in unique if not any(s < other for other in unique)]
    # letters in the order of the groups
    columns.sort(key=lambda s: [name not in s for name in names])
    return {name: "".join(_letter(i) for i, s in enumerate(columns) if name in s) for name in names}


def _letter(i: int) -> str:
    """``a`` to ``z``, then ``a1``, ``b1`` and so on."""
    return chr(ord("a") + i % 26) + (str(i // 26) if i >= 26 else "")


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise InputError(f"level is {level!r}, but must be in (0, 1): 0.05 is usual")
