"""``tournament``: many networks into one, round by round (thesis 2, conclusion: hierarchical merging)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from regraft.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Match:
    """One merge of a tournament.

    Attributes:
        round: from 1.
        number: within the round, from 1.
        entrants: names of the networks that are merged: their numbers from 0, or names of earlier matches.
    """

    round: int
    number: int
    entrants: tuple[str, ...]

    @property
    def name(self) -> str:
        """What its outcome is called.

        >>> Match(2, 1, ("round-1-match-1", "round-1-match-2")).name
        'round-2-match-1'
        """
        return f"round-{self.round}-match-{self.number}"


@dataclass(frozen=True)
class Tournament(Generic[T]):
    """What ``tournament`` gives.

    Attributes:
        winner: the last network.
        matches: in the order in which they were played.
    """

    winner: T
    matches: tuple[Match, ...]


def draw(entrants: int, size: int = 2) -> list[range]:
    """Which entrants of a round meet: neighbours, in as few matches of at most ``size`` as possible, as equal
    as possible. A match of one is none: that network goes on to the next round as it is.

    >>> [list(match) for match in draw(5, 2)]
    [[0, 1], [2, 3], [4]]
    >>> [len(match) for match in draw(8, 3)]
    [3, 3, 2]
    """
    matches = -(-entrants // size)
    small, larger = divmod(entrants, matches)
    stops = [i * small + min(i, larger) for i in range(matches + 1)]
    return [range(start, stop) for start, stop in itertools.pairwise(stops)]


def tournament(
    networks: Sequence[T], play: Callable[[Sequence[T], Match], T], *, size: int = 2
) -> Tournament[T]:
    """Merge networks by twos, their students by twos, and so on: 8 -> 4 -> 2 -> 1.

    Against merging all at once each student is never more than ``size`` times as wide while it has gates,
    which costs ``size`` ** 2 times a network's computation instead of N ** 2, and each merge must find the
    share 1 / ``size`` of the units instead of 1 / N.

    Args:
        networks: two or more; models, paths, whatever ``play`` takes.
        play: merges the networks of a match into one. A network without an opponent goes on as it is.
        size: networks of a match, at most; 2 or more.

    >>> tournament(["a", "b", "c"], lambda pair, match: "(" + " ".join(pair) + ")").winner
    '((a b) c)'

    Raises:
        InputError: fewer than two networks, or a size below 2.
    """
    if len(networks) < 2:
        raise InputError(f"a tournament needs two networks or more, but got {len(networks)}")
    if isinstance(size, bool) or not isinstance(size, int) or size < 2:
        raise InputError(f"size is {size!r}, but must be a whole number of 2 networks or more")
    standing = [(str(i), network) for i, network in enumerate(networks)]
    matches: list[Match] = []
    number_of_round = 0
    while len(standing) > 1:
        before, standing = standing, []
        number_of_round, number = number_of_round + 1, 0
        for group in draw(len(before), size):
            names, entrants = zip(*(before[i] for i in group), strict=True)
            if len(entrants) == 1:
                standing.append(before[group[0]])
                continue
            number += 1
            matches.append(Match(number_of_round, number, names))
            standing.append((matches[-1].name, play(entrants, matches[-1])))
    return Tournament(standing[0][1], tuple(matches))
