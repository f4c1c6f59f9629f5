"""Who speaks with whom: ``(nodes, generator) -> neighbours of each node``, both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from regraft.errors import InputError, unknown

Neighbours = dict[int, tuple[int, ...]]
Links = Callable[[Sequence[int], torch.Generator], Neighbours]


def ring(nodes: Sequence[int], generator: torch.Generator | None = None) -> Neighbours:
    """Each node and the next one in the order given; where a node is missing, the ring closes over it.

    >>> ring([0, 1, 3, 7])
    {0: (1, 7), 1: (0, 3), 3: (1, 7), 7: (0, 3)}
    """
    pairs = zip(nodes, [*nodes[1:], *nodes[:1]], strict=True)
    return _both_ways(nodes, pairs)


def full(nodes: Sequence[int], generator: torch.Generator | None = None) -> Neighbours:
    """Every node with every other.

    >>> full([0, 1, 3])
    {0: (1, 3), 1: (0, 3), 3: (0, 1)}
    """
    return {node: tuple(sorted(set(nodes) - {node})) for node in nodes}


@dataclass(frozen=True)
class RandomRings:
    """Some rings, each through all nodes in an order drawn anew in each round.

    Attributes:
        rings: 1 or more; a node has at most twice as many neighbours.

    >>> found = RandomRings(2)(range(8), torch.Generator().manual_seed(0))
    >>> all(2 <= len(others) <= 4 for others in found.values())
    True

    Raises:
        InputError: fewer than one ring.
    """

    rings: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.rings, bool) or not isinstance(self.rings, int) or self.rings < 1:
            raise InputError(f"rings is {self.rings!r}, but must be a whole number of 1 or more")

    def __call__(self, nodes: Sequence[int], generator: torch.Generator) -> Neighbours:
        """Neighbours of each node."""
        pairs = []
        for _ in range(self.rings):
            order = [nodes[i] for i in torch.randperm(len(nodes), generator=generator).tolist()]
            pairs += list(zip(order, [*order[1:], *order[:1]], strict=True))
        return _both_ways(nodes, pairs)


LINKS: dict[str, Links] = {"ring": ring, "random": RandomRings(), "full": full}
"""Links by name."""


def by_name(links: str | Links) -> Links:
    """Links from their name; anything else as it is.

    >>> by_name("ring") is ring
    True

    Raises:
        InputError: an unknown name.
    """
    if not isinstance(links, str):
        return links
    if links not in LINKS:
        raise unknown("graph of nodes", links, LINKS)
    return LINKS[links]


def _both_ways(nodes: Sequence[int], pairs: Iterable[tuple[int, int]]) -> Neighbours:
    found: dict[int, set[int]] = {node: set() for node in nodes}
    for a, b in pairs:
        if a != b:
            found[a].add(b)
            found[b].add(a)
    return {node: tuple(sorted(others)) for node, others in found.items()}
