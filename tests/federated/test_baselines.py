"""Baselines by their definitions."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from regraft import Topology
from regraft.errors import InputError
from regraft.federated import IID, Federation, Local, federate, partitioned
from regraft.federated.baselines import BASELINES, by_name, personal

LOCAL = Local(epochs=1, batch_size=10, lr=0.1, rate=0.3)


@pytest.fixture
def clients(split, generator):
    return partitioned(split(120), IID(), 3, generator)


def test_names():
    assert by_name("feddst") is BASELINES["feddst"]
    with pytest.raises(InputError, match="did you mean 'feddst'"):
        by_name("fedst")


def test_a_fixed_mask_stays_and_feddst_moves(net, clients):
    for name, moves in (("fixed-mask", False), ("feddst", True)):
        baseline = BASELINES[name]
        after = federate(net(), clients, Federation(baseline.strategy, baseline.local(LOCAL), rounds=2))
        assert (Topology.of(after.model) != Topology.of(net())) == moves
        assert Topology.of(after.model).nnz == Topology.of(net()).nnz


def test_dense_fedavg_is_the_weighted_mean_of_dense_networks(net, clients):
    baseline = BASELINES["dense-fedavg"]
    after = federate(
        net(density=None), clients, Federation(baseline.strategy, baseline.local(LOCAL), rounds=1)
    )
    from regraft.federated import local_round

    trained = [
        local_round(net(density=None), c, baseline.local(LOCAL), round=0, client=str(i)).dense["fc1.weight"]
        for i, c in enumerate(clients)
    ]
    torch.testing.assert_close(after.model.fc1.weight, torch.stack(trained).mean(0))


def test_personal_networks_keep_their_own_number_of_connections(net, clients, split):
    local = dataclasses.replace(LOCAL, evolve="rigl")
    done = personal(net(), clients, local, rounds=3, neighbours=1, test=split())
    topologies = [Topology.of(m) for m in done.models]
    assert all(t.nnz == Topology.of(net()).nnz for t in topologies)
    assert topologies[0] != topologies[1]
    assert len(done.accuracy) == 3
    assert done.upload_bytes > 0


def test_the_average_by_presence_is_over_those_that_have_the_position(net):
    from regraft.federated import Update
    from regraft.federated.baselines import _average

    updates = [Update.of(net(seed), round=0, client=str(seed), examples=1) for seed in (1, 2)]
    got = _average(net(0), updates)
    dense = [net(seed).fc1.weight.dense() for seed in (1, 2)]
    mine, both = dense[0] != 0, (dense[0] != 0) & (dense[1] != 0)
    expected = torch.where(both, (dense[0] + dense[1]) / 2, dense[0]) * mine
    torch.testing.assert_close(got.fc1.weight.dense(), expected)


def test_alone_nothing_is_exchanged(net, clients, split):
    alone = personal(net(), clients, LOCAL, rounds=2, neighbours=0, test=split())
    other = personal(net(), clients[:1], LOCAL, rounds=2, neighbours=0, test=split())
    assert alone.upload_bytes == 0
    assert alone.accuracy[0] == other.accuracy[0]


def test_neighbours_that_cannot_be(net, clients, split):
    with pytest.raises(InputError, match=r"neighbours is 3, but must be in \[0, 3\)"):
        personal(net(), clients, LOCAL, rounds=1, neighbours=3, test=split())
