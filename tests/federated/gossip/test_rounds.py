"""Gossip: it learns, with losses, delays and nodes that come and go; the same seed gives the same bits."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.federated.nets import network, samples

from regraft import Topology
from regraft.errors import InputError
from regraft.federated import Local, Trust, encode, gossip, local_round
from regraft.federated.client import local_round as real_round
from regraft.federated.gossip import rounds as module
from regraft.federated.gossip.merging import mean_of

LOCAL = Local(epochs=1, batch_size=10, lr=0.1)
LONG = Local(epochs=3, batch_size=10, lr=0.1)
TEST = samples(200, seed=99)


def parts(nodes=5, n=30):
    return [samples(n, seed) for seed in range(nodes)]


def run(settings=None, rounds=3, nodes=5, **more):
    return gossip.gossip(network(0), parts(nodes), LOCAL, rounds, settings, test=TEST, **more)


def all_equal(a, b, equal):
    return all(equal(x, y) for x, y in zip(a.models, b.models, strict=True)) and a.rounds == b.rounds


@pytest.mark.parametrize("links", ["ring", "random", "full"])
def test_it_learns_by_losses_and_delays(links):
    settings = gossip.Gossip(links, lost=0.2, late=0.2)
    model = network(0, density=0.6)
    start = (model(TEST.x).argmax(1) == TEST.y).float().mean()
    done = gossip.gossip(model, parts(4, 60), LONG, 8, settings, test=TEST, evaluate_every=8)
    last = done.rounds[-1]
    assert last.consensus > 0.7 > start
    assert min(last.accuracy) > 0.65
    assert last.nnstd < 0.3
    assert sum(r.lost for r in done.rounds) > 0
    assert done.rounds[0].accuracy == ()
    assert done.rounds[0].consensus is None


def test_the_same_seed_gives_the_same_bits_whatever_came_before(equal):
    settings = gossip.Gossip("random", lost=0.3, late=0.3, away={1: range(1, 2)}, seed=3)
    first = run(settings)
    torch.rand(100)
    assert all_equal(first, run(settings), equal)
    assert not all_equal(first, run(dataclasses.replace(settings, seed=4)), equal)


def test_the_order_in_which_nodes_are_computed_changes_nothing(equal, monkeypatch):
    settings = gossip.Gossip("ring", lost=0.3, late=0.3, seed=3)
    first = run(settings)
    train = module._Swarm._train

    def backwards(self, round, nodes):
        trained, failed = train(self, round, list(nodes)[::-1])
        return trained, failed

    monkeypatch.setattr(module._Swarm, "_train", backwards)
    assert all_equal(first, run(settings), equal)


def test_the_model_passed_in_and_the_global_generator_are_left_alone(equal):
    model, state = network(0), torch.get_rng_state()
    gossip.gossip(model, parts(2), LOCAL, 1)
    assert equal(model, network(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_on_the_full_graph_all_nodes_hold_the_mean(equal):
    done = run(gossip.Gossip("full"), rounds=2)
    assert all(equal(model, done.models[0]) for model in done.models)
    assert done.rounds[-1].nnstd == 0


def test_the_density_stays():
    done = run(gossip.Gossip(lost=0.3), rounds=4)
    start = Topology.of(network(0))
    for model in (*done.models, done.mean):
        assert {n: c.nnz for n, c in Topology.of(model).items()} == {n: c.nnz for n, c in start.items()}


def test_lost_to_the_last_letter_every_node_is_alone(equal):
    done = run(gossip.Gossip(lost=1.0), rounds=1)
    for node, (model, data) in enumerate(zip(done.models, parts(), strict=True)):
        alone = local_round(network(0), data, LOCAL, round=0, client=str(node)).put(network(1))
        assert equal(model, alone)
    assert done.rounds[0].lost == done.rounds[0].sent == 10


def test_bytes_are_those_of_the_letters():
    done = run(rounds=1)
    plan = module.Plan.of(network(0))
    letters = [
        encode(local_round(network(0), data, LOCAL, round=0, client=str(node)), plan)
        for node, data in enumerate(parts())
    ]
    assert done.rounds[0].bytes == sum(2 * len(message) for message in letters)
    half = run(gossip.Gossip(dtype="float16"), rounds=1)
    assert half.rounds[0].bytes < 0.8 * done.rounds[0].bytes


def test_a_newcomer_takes_the_mean_of_what_it_hears_and_trains_afterwards(equal):
    settings = gossip.Gossip("full", away={4: range(2)})
    trained = []

    def watched(model, data, local, **who):
        trained.append(real_round(model, data, local, **who))
        return trained[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "local_round", watched)
        done = run(settings, rounds=4)
    assert [update.round for update in trained if update.client == "4"] == [3]
    assert [r.present for r in done.rounds] == [4, 4, 5, 5]
    heard = [update.put(network(1)) for update in trained if update.round == 2]
    assert equal(run(settings, rounds=3).models[4], mean_of(heard))


def test_who_leaves_keeps_the_network_of_then(equal):
    early = run(rounds=1)
    done = run(gossip.Gossip(away={2: range(1, 9)}), rounds=3)
    assert equal(done.models[2], early.models[2])
    assert len(done.rounds[-1].accuracy) == 4
    rest = [model for node, model in enumerate(done.models) if node != 2]
    assert equal(done.mean, mean_of(rest))


def test_where_all_are_newcomers_they_begin_anyway():
    done = run(gossip.Gossip(away={0: range(1, 2), 1: range(2, 3)}), rounds=3, nodes=2)
    assert [r.present for r in done.rounds] == [2, 1, 1]
    assert not any(r.failed for r in done.rounds)


def test_old_letters_are_not_merged():
    late = run(gossip.Gossip(late=0.6, oldest=0), rounds=6)
    assert sum(r.stale for r in late.rounds) > 5
    patient = run(gossip.Gossip(late=0.6, oldest=6), rounds=6)
    assert sum(r.stale for r in patient.rounds) < sum(r.stale for r in late.rounds)


def test_a_node_that_fails_is_silent_and_the_round_goes_on(equal):
    data = parts()
    data[1] = samples(30, 1)
    data[1].x.mul_(1e25)
    done = gossip.gossip(network(0), data, LOCAL, 2, gossip.Gossip("full"))
    assert list(done.rounds[0].failed) == [1]
    assert "diverged" in done.rounds[0].failed[1]
    assert done.rounds[0].sent == 16


def test_all_failing_is_an_error():
    data = parts(2)
    for part in data:
        part.x.mul_(1e25)
    with pytest.raises(InputError, match=r"training failed on all 2 nodes in round 0: .*diverged"):
        gossip.gossip(network(0), data, LOCAL, 2)


def test_wrong_networks_are_turned_away_by_name(monkeypatch, equal):
    def wrong(update, plan, dtype):
        message = encode(update, plan, dtype)
        return message[:-1] + b"?" if update.client == "1" else message

    monkeypatch.setattr(module.wire, "encode", wrong)
    done = run(gossip.Gossip("ring"), rounds=2)
    assert [r.rejected for r in done.rounds] == [{"corrupt": 2}] * 2
    with_care = gossip.Gossip("ring", trust=Trust(largest=1e-9))
    assert run(with_care, rounds=1).rounds[0].rejected == {"too-large": 8, "corrupt": 2}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"links": "line"}, "graph of nodes 'line'"),
        ({"lost": 1.2}, "lost is 1.2"),
        ({"late": 1.0}, "late 1.0"),
        ({"oldest": -1}, "oldest is -1"),
        ({"dtype": "int8"}, "int8"),
        ({"align": "wishes"}, "wishes"),
    ],
)
def test_settings_that_cannot_be(change, sentence):
    with pytest.raises(InputError, match=sentence):
        gossip.Gossip(**change)


def test_bad_arguments_are_named():
    with pytest.raises(InputError, match="2 nodes or more, but there are the samples of 1"):
        run(nodes=1)
    with pytest.raises(InputError, match="rounds is 0"):
        run(rounds=0)
    with pytest.raises(InputError, match="evaluate_every is 0"):
        run(evaluate_every=0)
    with pytest.raises(InputError, match="node 7 is away, but the nodes are 0 to 4"):
        run(gossip.Gossip(away={7: range(2)}))
    with pytest.raises(InputError, match="all nodes are away in round 1"):
        run(gossip.Gossip(away={node: range(1, 2) for node in range(5)}))


def test_more_exchanges_bring_nodes_together_and_cost_as_many_letters():
    once = run(gossip.Gossip("ring", lost=0.2), rounds=2, nodes=6)
    thrice = run(gossip.Gossip("ring", lost=0.2, exchanges=3), rounds=2, nodes=6)
    assert sum(r.sent for r in thrice.rounds) == 3 * sum(r.sent for r in once.rounds)
    assert thrice.rounds[-1].nnstd < once.rounds[-1].nnstd / 2
    assert all(not r.rejected for r in thrice.rounds)


def test_on_the_full_graph_more_exchanges_change_nothing():
    once, twice = (run(gossip.Gossip("full", exchanges=n), rounds=2, nodes=4) for n in (1, 2))
    for a, b in zip(once.models, twice.models, strict=True):
        assert Topology.of(a) == Topology.of(b)
        assert torch.allclose(a(TEST.x), b(TEST.x), atol=1e-5)


def test_newcomers_speak_in_the_next_exchange():
    done = run(gossip.Gossip("ring", exchanges=2, away={1: range(1)}), rounds=2, nodes=4)
    # three nodes of a ring, twice; then three that have trained, and all four
    assert [r.sent for r in done.rounds] == [12, 14]
    assert [r.present for r in done.rounds] == [3, 4]
