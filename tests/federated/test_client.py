"""A local round: deterministic, on a copy, and the topology changes as the settings say."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from regraft import Topology
from regraft.errors import InputError, MismatchError
from regraft.federated import Local, Plan, local_round
from regraft.schedules import Cosine


def test_the_same_round_gives_the_same_update_whatever_came_before(net, split, equal):
    local = Local(epochs=2, batch_size=7)
    first = local_round(net(), split(), local, round=1, client="a", seed=3)
    torch.rand(100)
    local_round(net(), split(), local, round=1, client="b", seed=3)
    again = local_round(net(), split(), local, round=1, client="a", seed=3)
    assert equal(first.put(net(5)), again.put(net(6)))


def test_the_model_and_the_global_generator_are_left_alone(net, split, equal):
    model, state = net(), torch.get_rng_state()
    local_round(model, split(), Local(), round=0, client="a")
    assert equal(model, net())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("change", [{"seed": 1}, {"round": 1}, {"client": "b"}])
def test_another_seed_round_or_client_gives_another_update(net, split, equal, change):
    usual = {"round": 0, "client": "a", "seed": 0}
    a, b = (
        local_round(net(), split(), Local(batch_size=7), **kind).put(net())
        for kind in (usual, {**usual, **change})
    )
    assert not equal(a, b)
    assert Topology.of(a) != Topology.of(b)


def test_it_learns(net, split):
    model, data = net(density=0.6), split(300)
    trained = local_round(model, data, Local(epochs=5, lr=0.1), round=0, client="a").put(net())
    assert (trained(data.x).argmax(1) == data.y).float().mean() > 0.8


def test_topologies_change_at_the_rate_and_in_the_rounds_that_the_settings_say(net, split):
    local = Local(evolve="set-magnitude", rate=0.5, rounds=4, until=0.5)
    plan, before = Plan.of(net()), Topology.of(net())
    for number, rate in enumerate([0.5, 0.5, 0.0, 0.0]):
        after = local_round(net(), split(), local, round=number, client="a").topology(plan)
        assert after.nnz == before.nnz
        kept = sum(shared for shared, _ in before.overlap(after).values())
        assert kept >= (1 - rate) * before.nnz - 3
        assert (kept < before.nnz) == (rate > 0)


def test_the_learning_rate_of_a_round_is_the_schedules(net, split, equal):
    decaying = Local(lr=0.1, lr_schedule="linear", rounds=4)
    plain = Local(lr=0.05, rounds=4)
    a, b, c = (
        local_round(net(), split(), local, round=number, client="a").put(net())
        for local, number in ((decaying, 2), (plain, 2), (dataclasses.replace(plain, lr=0.1), 2))
    )
    assert equal(a, b)
    assert not equal(a, c)


@pytest.mark.parametrize("evolve", ["set", "set-magnitude", "rigl", "search", "itop", "static", "none"])
def test_every_method_runs(net, split, evolve):
    made = local_round(net(), split(), Local(evolve=evolve, rate=0.3), round=0, client="a")
    assert made.nnz == Topology.of(net()).nnz


def test_clients_grow_alike_together_and_each_for_itself_else(net, split):
    plan = Plan.of(net())
    for together in (True, False):
        local = Local(together=together, rate=0.4)
        a, b = (
            local_round(net(), split(seed=s), local, round=0, client=str(s)).topology(plan) for s in (1, 2)
        )
        assert (a == b) == together


def test_dense_networks_train_too(net, split):
    model = net(density=None)
    made = local_round(model, split(), Local(evolve="none"), round=0, client="a")
    assert made.nnz == 0
    assert not torch.equal(made.dense["fc1.weight"], model.fc1.weight)


def test_statistics_come_along(net, split):
    made = local_round(net(), split(), Local(unit_score="activity"), round=0, client="a")
    assert {name: tuple(t.shape) for name, t in made.statistics.items()} == {"fc1": (12,), "fc2": (8,)}


def test_rates_may_follow_a_schedule():
    local = Local(rate=Cosine(0.4, 0.0), rounds=10, until=1.0)
    assert local.rate_in(0) == pytest.approx(0.4)
    assert local.rate_in(9) < 0.02


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ({"epochs": 0}, "epochs is 0"), ({"batch_size": 0}, "batch_size is 0"),
        ({"evolve": "sett"}, "did you mean 'set'"), ({"until": 2}, "until is 2"),
        ({"rate": 1.5}, "gives the rate 1.5"), ({"optimizer": "sgdd"}, "unknown optimizer"),
        ({"drop": "clients"}, "did you mean 'client'"),
        ({"unit_score": "activty"}, "did you mean 'activity'"), ({"loss": "x"}, "unknown loss"),
        ({"grow_init": "x"}, "x"), ({"rate": Cosine()}, "needs to know how long"),
        ({"lr_schedule": "cosin", "rounds": 3}, "did you mean 'cosine'"),
        ({"lr_schedule": "cosine"}, "how long training lasts"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(choice, sentence):
    with pytest.raises(InputError, match=sentence):
        Local(**choice)


def test_divergence_says_which_client_and_round(net, split):
    with pytest.raises(InputError, match="client 'a' diverged in round 3"):
        local_round(net(), split(), Local(epochs=50, lr=1e12), round=3, client="a")


def test_samples_that_do_not_fit(net, split):
    data = dataclasses.replace(split(), x=torch.ones(30, 5))
    with pytest.raises(MismatchError, match="does not take samples of shape"):
        local_round(net(), data, Local(), round=0, client="a")


def test_where_the_server_drops_clients_only_grow(net, split):
    plan, before = Plan.of(net()), Topology.of(net())
    local = Local(rate=0.3, drop="server", evolve="rigl")
    after = local_round(net(), split(), local, round=0, client="a").topology(plan)
    assert (before - after).nnz == 0
    assert 1.15 * before.nnz < after.nnz <= 1.31 * before.nnz  # some of the weakest are found again
    quiet = dataclasses.replace(local, lr=1e-12, momentum=0.0)
    made = local_round(net(), split(), quiet, round=0, client="a")
    kept = dict(
        zip(made.layers["fc1.weight"].index.tolist(), made.layers["fc1.weight"].values.tolist(), strict=True)
    )
    weight = net().fc1.weight
    for position, value in zip(weight.index.tolist(), weight.values.tolist(), strict=True):
        assert kept[position] == pytest.approx(value, abs=1e-6)
