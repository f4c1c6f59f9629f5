"""Letters: lost and late as often as told, and each by itself."""

from __future__ import annotations

import pytest

from regraft.errors import InputError
from regraft.federated.gossip import Letter, Post

EVERYBODY = range(100)


def sent(post, rounds, order=1):
    for round in range(rounds):
        for node in [*range(10)][::order]:
            for to in [*range(10)][::order]:
                post.send(Letter(node, round, 9, b""), to)


def delivered(post, rounds):
    return [
        (round, to, letter.sender, letter.round)
        for round in range(rounds)
        for to, letters in sorted(post.deliver(round, EVERYBODY).items())
        for letter in letters
    ]


def test_without_losses_all_arrive_in_their_round():
    post = Post()
    sent(post, 3)
    found = delivered(post, 3)
    assert len(found) == 300
    assert all(now == then for now, _, _, then in found)
    assert (post.sent, post.lost) == (300, 0)


def test_letters_are_lost_and_late_as_often_as_told():
    post = Post(lost=0.2, late=0.25, seed=1)
    sent(post, 50)
    found = delivered(post, 200)
    assert post.lost + len(found) == post.sent == 5000
    assert abs(post.lost / 5000 - 0.2) < 0.03
    on_time = sum(now == then for now, _, _, then in found)
    assert abs(on_time / len(found) - 0.75) < 0.03
    assert abs(sum(now - then for now, _, _, then in found) / len(found) - 1 / 3) < 0.04


def test_the_order_of_sending_changes_nothing():
    forward, backward = Post(0.3, 0.3, seed=2), Post(0.3, 0.3, seed=2)
    sent(forward, 4)
    sent(backward, 4, order=-1)
    assert delivered(forward, 60) == delivered(backward, 60)


def test_another_seed_loses_others():
    posts = [Post(0.5, seed=seed) for seed in (0, 1)]
    for post in posts:
        sent(post, 2)
    assert delivered(posts[0], 2) != delivered(posts[1], 2)


def test_letters_to_those_who_left_are_lost():
    post = Post()
    sent(post, 1)
    assert sorted(post.deliver(0, {1, 2})) == [1, 2]
    assert post.lost == 80


@pytest.mark.parametrize(("lost", "late"), [(-0.1, 0), (1.1, 0), (0, -0.1), (0, 1), (float("nan"), 0)])
def test_what_is_no_probability_is_refused(lost, late):
    with pytest.raises(InputError, match=r"lost is .* late .* must be in"):
        Post(lost, late)
