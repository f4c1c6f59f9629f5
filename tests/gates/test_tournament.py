"""Who meets whom, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import InputError
from regraft.gates import Match, tournament
from regraft.gates.tournament import draw

Names = Sequence[tuple[int, ...]]


def joined(entrants: Names, match: Match) -> tuple[int, ...]:
    return tuple(i for entrant in entrants for i in entrant)


@given(st.integers(2, 40), st.integers(2, 5))
def test_every_network_is_in_the_winner_once(networks: int, size: int) -> None:
    done = tournament([(i,) for i in range(networks)], joined, size=size)
    assert done.winner == tuple(range(networks))
    assert all(2 <= len(match.entrants) <= size for match in done.matches)
    assert len({match.name for match in done.matches}) == len(done.matches)


@given(st.integers(2, 60), st.integers(2, 5))
def test_matches_are_as_few_and_as_equal_as_possible(entrants: int, size: int) -> None:
    sizes = [len(match) for match in draw(entrants, size)]
    assert sum(sizes) == entrants
    assert len(sizes) == -(-entrants // size)
    assert max(sizes) - min(sizes) <= 1


def test_eight_become_four_two_one() -> None:
    done = tournament([(i,) for i in range(8)], joined)
    assert [match.round for match in done.matches] == [1, 1, 1, 1, 2, 2, 3]
    assert done.matches[-1] == Match(3, 1, ("round-2-match-1", "round-2-match-2"))


def test_a_network_without_an_opponent_goes_on() -> None:
    done = tournament([(i,) for i in range(3)], joined)
    assert [match.entrants for match in done.matches] == [("0", "1"), ("round-1-match-1", "2")]


@pytest.mark.parametrize(("networks", "size"), [([(0,)], 2), ([], 2), ([(0,), (1,)], 1), ([(0,), (1,)], 2.0)])
def test_too_few_networks_or_places_are_refused(networks: Names, size: int) -> None:
    with pytest.raises(InputError, match=r"two networks or more|size is"):
        tournament(networks, joined, size=size)
