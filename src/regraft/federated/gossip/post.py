"""``Post``: letters on their way between nodes; some are late, some are lost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container
from dataclasses import dataclass

import torch

from regraft.errors import InputError
from regraft.train import seeds


@dataclass(frozen=True)
class Letter:
    """A node's network as one of its neighbours gets it.

    Attributes:
        sender: number of the node.
        round: number of the exchange in which it was sent.
        degree: how many neighbours the sender had then.
        message: the update as bytes, see ``federated.encode``.
    """

    sender: int
    round: int
    degree: int
    message: bytes


class Post:
    """Carries letters; what becomes of one depends on the seed, its round, sender and receiver alone.

    >>> post = Post(late=0.9, seed=0)
    >>> for node in range(1, 6):
    ...     post.send(Letter(0, 0, 5, b"hello"), node)
    >>> here = [len(post.deliver(round, range(1, 6))) for round in range(40)]
    >>> here[0] < 5, sum(here), post.lost
    (True, 5, 0)

    Attributes:
        sent, lost: letters so far.
    """

    def __init__(self, lost: float = 0.0, late: float = 0.0, seed: int = 0) -> None:
        """Nothing on its way.

        Args:
            lost: probability that a letter never arrives, in [0, 1].
            late: probability that a letter stays another exchange on its way, in [0, 1), again in each.

        Raises:
            InputError: a probability out of range.
        """
        check_probabilities(lost, late)
        self._lost, self._late, self._seed = lost, late, seed
        self._waiting: defaultdict[int, list[tuple[int, Letter]]] = defaultdict(list)
        self.sent = self.lost = 0

    def send(self, letter: Letter, to: int) -> None:
        """Take a letter. Whether it is lost, and how late it comes, is settled now."""
        self.sent += 1
        generator = seeds.stream(self._seed, f"letter of {letter.sender} to {to} in round {letter.round}")

        def happens(probability: float) -> bool:
            return bool(torch.rand((), generator=generator, dtype=torch.float64) < probability)

        if happens(self._lost):
            self.lost += 1
            return
        arrival = letter.round
        while happens(self._late):
            arrival += 1
        self._waiting[arrival].append((to, letter))

    def deliver(self, round: int, present: Container[int]) -> dict[int, list[Letter]]:
        """The letters that arrive in an exchange, in order of sender, by receiver.

        Args:
            present: nodes that are there; letters to others are lost.
        """
        arrived: defaultdict[int, list[Letter]] = defaultdict(list)
        for to, letter in self._waiting.pop(round, []):
            if to in present:
                arrived[to].append(letter)
            else:
                self.lost += 1
        return {to: sorted(letters, key=lambda x: (x.sender, x.round)) for to, letters in arrived.items()}


def check_probabilities(lost: float, late: float) -> None:
    """Raise InputError unless both are probabilities, and letters arrive some day."""
    if not 0 <= lost <= 1 or not 0 <= late < 1:
        raise InputError(f"lost is {lost!r} and late {late!r}, but must be in [0, 1] and [0, 1)")
