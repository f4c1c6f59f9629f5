"""The scores by name."""

from __future__ import annotations

from regraft.errors import unknown
from regraft.scores.basic import magnitude, random
from regraft.scores.protocol import Score

SCORES: dict[str, Score] = {"magnitude": magnitude, "random": random}


def by_name(name: str) -> Score:
    """The score called ``name``, or an error with the nearest names.

    >>> by_name("magnitude") is magnitude
    True
    """
    if name not in SCORES:
        raise unknown("score", name, SCORES)
    return SCORES[name]
