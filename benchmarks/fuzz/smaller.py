"""Less of an input that makes the same fault: what a regression test should hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .attempt import Outcome


def smaller(case: Any, outcome_of: Callable[[Any], Outcome], wanted: Outcome, most: int = 2000) -> Any:
    """``case`` with pieces cut away as long as kind and place of the fault stay.

    Bytes and texts become shorter; of a tuple each part by itself; anything else stays as it is.
    """
    if isinstance(case, tuple):
        parts = list(case)
        for i, part in enumerate(parts):

            def whole(part: Any, i: int = i) -> Outcome:
                return outcome_of((*parts[:i], part, *parts[i + 1 :]))

            parts[i] = smaller(part, whole, wanted, most)
        return tuple(parts)
    if not isinstance(case, bytes | str):
        return case
    return _shorter(case, outcome_of, wanted, most)


def _shorter(case: Any, outcome_of: Callable[[Any], Outcome], wanted: Outcome, most: int) -> Any:
    tries, piece = 0, len(case) // 2
    while piece >= 1 and tries < most:
        at = 0
        while at < len(case) and tries < most:
            shorter = case[:at] + case[at + piece :]
            found = outcome_of(shorter)
            tries += 1
            if (found.status, found.where) == (wanted.status, wanted.where):
                case = shorter
            else:
                at += piece
        piece //= 2
    return case
