"""Merging with neighbours: Metropolis weights, equal representation, parents left alone."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.federated.nets import network

from regraft import Merger, Topology
from regraft.errors import MismatchError
from regraft.federated import Update
from regraft.federated.gossip import RandomRings, full, merge_arrivals, ring
from regraft.federated.gossip.merging import mean_of


def letter(model, sender):
    return Update.of(model, round=0, client=str(sender), examples=1)


def vector(model):
    """All sparse weights as dense float64 vectors, one after the other."""
    weights = [model.get_submodule(name) for name in Topology.of(model)]
    return torch.cat([weight.dense().detach().flatten() for weight in weights]).double()


def step(models, links, density="keep"):
    return [
        merge_arrivals(
            models[i],
            {j: (len(links[j]), letter(models[j], j)) for j in links[i]},
            len(links[i]),
            density=density,
        )
        for i in links
    ]


@pytest.mark.parametrize("links", [ring, full])
def test_on_a_regular_graph_it_is_the_merger_with_equal_counts(links, equal):
    models = [network(seed) for seed in range(5)]
    found = links(range(5))
    merged = step(models, found)
    for i in range(5):
        merger = Merger("average", "average")
        for j in (i, *found[i]):
            merger.add(models[j])
        assert equal(merged[i], merger.result())


def star(nodes, generator=None):
    hub, *others = nodes
    return {hub: tuple(others)} | dict.fromkeys(others, (hub,))


@settings(max_examples=12)
@given(seed=st.integers(0, 1000), links=st.sampled_from([ring, star, full, RandomRings(2)]))
def test_weights_are_those_of_metropolis(seed, links):
    generator = torch.Generator().manual_seed(seed)
    models = [network(seed + i) for i in range(5)]
    found = links(range(5), generator)
    W = np.zeros((5, 5))
    for i, others in found.items():
        for j in others:
            W[i, j] = 1 / (1 + max(len(others), len(found[j])))
        W[i, i] = 1 - W[i].sum()
    assert np.allclose(W, W.T)
    before = torch.stack([vector(model) for model in models])
    after = torch.stack([vector(model) for model in step(models, found, density=None)])
    assert torch.allclose(after, torch.from_numpy(W) @ before, atol=1e-6)


@pytest.mark.parametrize("links", [ring, star])
def test_all_nodes_come_to_be_represented_equally(links):
    models = [network(seed) for seed in range(5)]
    mean = torch.stack([vector(model) for model in models]).mean(0)
    for _ in range(30):
        models = step(models, links(range(5)), density=None)
    for model in models:
        assert torch.allclose(vector(model), mean, atol=2e-3)


def test_the_share_of_a_lost_letter_stays_with_the_receiver():
    a, b = network(0), network(1)
    merged = merge_arrivals(a, {1: (2, letter(b, 1))}, 2, density=None)
    assert torch.allclose(vector(merged), vector(a) * 2 / 3 + vector(b) / 3, atol=1e-6)


def test_late_letters_of_many_who_are_no_neighbours_leave_the_node_its_part():
    models = [network(seed) for seed in range(4)]
    arrived = {j: (1, letter(models[j], j)) for j in (1, 2, 3)}
    merged = merge_arrivals(models[0], arrived, 1, density=None)
    mean = torch.stack([vector(model) for model in models]).mean(0)
    assert torch.allclose(vector(merged), mean, atol=1e-6)


def test_nothing_arrived(equal):
    model = network(0)
    merged = merge_arrivals(model, {}, 2)
    assert equal(merged, model)
    assert merged is not model


def test_density_is_kept_and_nothing_passed_in_changes(equal):
    a, b = network(0), network(1)
    update = letter(b, 1)
    copies = copy.deepcopy(a), copy.deepcopy(b)
    merged = merge_arrivals(a, {1: (1, update)}, 1)
    assert {n: c.nnz for n, c in Topology.of(merged).items()} == {n: c.nnz for n, c in Topology.of(a).items()}
    assert equal(a, copies[0])
    assert equal(update.put(network(5)), copies[1])


def test_units_in_another_order_are_aligned():
    from regraft import graph

    a = network(0, density=1.0)
    found = graph.trace(a, (6,))
    shuffled = {g.name: torch.randperm(g.units) for g in found.free}
    b = graph.take(a, found, shuffled)
    x = torch.randn(20, 6)
    naive = merge_arrivals(a, {1: (1, letter(b, 1))}, 1)
    aligned = merge_arrivals(a, {1: (1, letter(b, 1))}, 1, align="weights")
    assert torch.allclose(aligned(x), a(x), atol=1e-4)
    assert not torch.allclose(naive(x), a(x), atol=1e-2)


def test_another_architecture_is_refused():
    other = Update(0, "1", 1, {}, {})
    with pytest.raises(MismatchError, match="one architecture"):
        merge_arrivals(network(0), {1: (1, other)}, 1)


def test_the_mean_counts_all_alike():
    models = [network(seed) for seed in range(3)]
    mean = mean_of(models, None)
    assert torch.allclose(vector(mean), torch.stack([vector(m) for m in models]).mean(0), atol=1e-6)
