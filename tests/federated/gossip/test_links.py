"""Who speaks with whom: both ways, never with oneself, and drawn anew where it is random."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import InputError
from regraft.federated.gossip import RandomRings, full, ring
from regraft.federated.gossip.links import LINKS, by_name

NODES = st.lists(st.integers(0, 30), unique=True, min_size=1, max_size=12).map(sorted)


@given(nodes=NODES, name=st.sampled_from([*LINKS, "two rings"]), seed=st.integers(0, 5))
def test_links_go_both_ways_and_reach_everybody(nodes, name, seed):
    rule = RandomRings(2) if name == "two rings" else by_name(name)
    found = rule(nodes, torch.Generator().manual_seed(seed))
    assert list(found) == nodes
    for node, others in found.items():
        assert node not in others
        assert list(others) == sorted(set(others))
        assert all(node in found[other] for other in others)
    reached, new = {nodes[0]}, {nodes[0]}
    while new:
        new = {other for node in new for other in found[node]} - reached
        reached |= new
    assert reached == set(nodes)


def test_degrees():
    assert {len(x) for x in ring(range(16)).values()} == {2}
    assert {len(x) for x in full(range(16)).values()} == {15}
    found = RandomRings(3)(range(50), torch.Generator().manual_seed(0))
    assert 4 < sum(len(x) for x in found.values()) / 50 <= 6


def test_two_nodes_are_one_pair_and_one_node_is_alone():
    assert ring([4, 9]) == {4: (9,), 9: (4,)}
    assert ring([4]) == full([4]) == {4: ()}


def test_random_rings_follow_the_generator():
    a, b, c = (RandomRings()(range(9), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert a == b != c


@pytest.mark.parametrize("rings", [0, -1, 1.5, True])
def test_a_number_of_rings_that_cannot_be(rings):
    with pytest.raises(InputError, match=r"rings is .* 1 or more"):
        RandomRings(rings)


def test_an_unknown_graph_is_named():
    with pytest.raises(InputError, match=r"graph of nodes 'rign'.*ring"):
        by_name("rign")
