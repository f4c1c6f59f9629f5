"""Rounds on the server: what a merge must equal, who is turned away, and that the model stays."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from regraft import Topology, WeightMatching, densify, graph, merge, resparsify
from regraft.errors import InputError
from regraft.federated import (
    Entries,
    Median,
    Plan,
    SelectNeurons,
    SparseMerge,
    TrimmedMean,
    Trust,
    Update,
    encode,
    receive,
)
from regraft.merging import select_neurons

NAMES = "abcde"


def play(strategy, model, updates, **choices):
    under_way = strategy.begin(model, **choices)
    assert [under_way.add(u) for u in updates] == [None] * len(updates)
    return under_way.finish()


@pytest.mark.parametrize("over", ["networks", "present"])
@pytest.mark.parametrize("density", ["keep", 0.2, None])
def test_a_round_equals_merging_the_networks(net, update, equal, over, density):
    updates = [update(seed, client) for seed, client in enumerate("abc", 1)]
    strategy = SparseMerge(over=over, density=density)
    expected = merge([net(1), net(2), net(3)], "average", "average", density, over=over)
    got = play(strategy, net(0), updates)
    if density == "keep":  # as many as the model of the round has; here, as the networks have
        assert [c.nnz for c in Topology.of(got).values()] == [c.nnz for c in Topology.of(net(0)).values()]
    for name, tensor in got.state_dict().items():
        torch.testing.assert_close(tensor, expected.state_dict()[name])


def test_updates_with_more_connections_are_cut_down_to_the_models_number(net, update):
    more = [Update.of(net(seed, 0.6), round=0, client=str(seed), examples=1) for seed in range(3)]
    got = play(SparseMerge(), net(0), more)
    assert [c.nnz for c in Topology.of(got).values()] == [c.nnz for c in Topology.of(net(0)).values()]
    expected = merge([net(seed, 0.6) for seed in range(3)], "average", "average", None)
    resparsify(expected, counts={n: c.nnz for n, c in Topology.of(net(0)).items()})
    assert Topology.of(got) == Topology.of(expected)


def test_examples_weigh(net, update):
    updates = [update(1, "a", examples=30), update(2, "b", examples=10)]
    got = play(SparseMerge(density=None), net(0), updates)
    torch.testing.assert_close(got.fc1.bias, 0.75 * net(1).fc1.bias + 0.25 * net(2).fc1.bias)
    got = play(SparseMerge(density=None, by_examples=False), net(0), updates)
    torch.testing.assert_close(got.fc1.bias, 0.5 * net(1).fc1.bias + 0.5 * net(2).fc1.bias)


def test_the_model_of_the_round_is_left_alone(net, update, equal):
    model = net(0)
    play(SparseMerge(), model, [update(1, "a"), update(2, "b")])
    assert equal(model, net(0))


def test_alignment_undoes_a_permutation(net, update):
    model = net(0)
    order = {"fc1": torch.randperm(12), "fc2": torch.randperm(8)}
    turned = graph.take(model, graph.trace(model), order)
    mine = dataclasses.replace(update(0, "b"), **_parts(turned))
    got = play(SparseMerge(align=WeightMatching()), model, [update(0, "a"), mine])
    x = torch.randn(20, 6)
    torch.testing.assert_close(got(x), model(x), rtol=1e-4, atol=1e-5)
    plain = play(SparseMerge(), model, [update(0, "a"), mine])
    assert not torch.allclose(plain(x), model(x), atol=1e-2)


def _parts(model):
    made = Update.of(model, round=0, client="b", examples=10)
    return {"layers": made.layers, "dense": made.dense}


def test_neurons_are_selected_by_what_the_clients_say(net, update, equal):
    scores = [{"fc1": torch.rand(12), "fc2": torch.rand(8)} for _ in range(2)]
    updates = [
        dataclasses.replace(update(seed, client), statistics=told)
        for seed, client, told in zip((1, 2), "ab", scores, strict=True)
    ]
    got = play(SelectNeurons(), net(0), updates)
    assert Topology.of(got).nnz == Topology.of(net(0)).nnz
    kept = Topology.of(select_neurons([net(1), net(2)], score=scores))
    assert Topology.of(got)["fc1.weight"].nnz == kept["fc1.weight"].nnz


def test_statistics_of_other_units_are_turned_away(net, update):
    under_way = SelectNeurons().begin(net(0))
    odd = dataclasses.replace(update(1), statistics={"fc1": torch.rand(3)})
    assert under_way.add(odd) == "shape"


@pytest.mark.parametrize("rule", [Median(), TrimmedMean(0.2)])
def test_robust_rules_survive_one_liar_of_five(net, update, rule):
    honest = [dataclasses.replace(update(1, c)) for c in "abcd"]
    weight = honest[0].layers["fc1.weight"]
    lie = Entries(weight.index, torch.full_like(weight.values, 900.0))
    liar = dataclasses.replace(update(1, "e"), layers={**honest[0].layers, "fc1.weight": lie})
    robust = SparseMerge(rule, rule, by_examples=False)
    torch.testing.assert_close(
        play(robust, net(0), [*honest, liar]).fc1.weight.values, net(1).fc1.weight.values
    )
    moved = play(SparseMerge(), net(0), [*honest, liar]).fc1.weight.values
    assert moved.abs().max() > 100


def test_robust_rules_by_their_definitions():
    values = torch.randn(9, 50, dtype=torch.float64)
    present = torch.ones(9, 50, dtype=torch.bool)
    torch.testing.assert_close(Median()(values, present), values.median(0).values)
    ordered = values.sort(0).values
    torch.testing.assert_close(TrimmedMean(0.25)(values, present), ordered[2:-2].mean(0))
    torch.testing.assert_close(TrimmedMean(0.0)(values, present), values.mean(0))
    values, present = torch.tensor([[1.0], [5.0], [0.0]]), torch.tensor([[True], [True], [False]])
    assert Median()(values, present).item() == 3.0


def test_a_clipped_client_moves_the_model_no_further(net, update):
    model = net(0)
    got = play(SparseMerge(clip=0.5, density=None), model, [update(1, "a")])
    dense = [
        torch.cat([p.flatten() for p in densify(copy.deepcopy(m)).parameters()]) for m in (got, model, net(1))
    ]
    assert (dense[0] - dense[1]).norm().item() == pytest.approx(0.5, rel=1e-4)
    direction = torch.nn.functional.cosine_similarity(dense[0] - dense[1], dense[2] - dense[1], dim=0)
    assert direction.item() == pytest.approx(1, abs=1e-4)
    same = play(SparseMerge(clip=1e3, density=None), model, [update(1, "a")])
    torch.testing.assert_close(same.fc1.weight.values, net(1).fc1.weight.values)


def test_noise_has_the_deviation_that_was_asked_for(net, update):
    updates = [update(1, c) for c in "ab"]
    strategy = SparseMerge(clip=1e3, noise=0.01, by_examples=False)
    noisy, again = (play(strategy, net(0), updates) for _ in range(2))
    plain = play(dataclasses.replace(strategy, noise=0.0), net(0), updates)
    differences = torch.cat(
        [(a - b).flatten() for a, b in zip(noisy.parameters(), plain.parameters(), strict=True)]
    )
    assert differences.std().item() == pytest.approx(0.01 * 1e3 / 2, rel=0.2)
    assert torch.equal(noisy.fc1.bias, again.fc1.bias)


def test_too_few_updates_keep_the_model(net, update, equal):
    model = net(0)
    under_way = SparseMerge(min_fit=2).begin(model)
    under_way.add(update(1, "a"))
    under_way.add(dataclasses.replace(update(2, "b"), round=7))
    with pytest.raises(InputError, match=r"has 1 usable updates, but needs 2: the model stays .* of round 7"):
        under_way.finish()
    assert equal(model, net(0))


def test_messages_come_in_as_bytes(net, update):
    under_way = SparseMerge().begin(net(0))
    plan, base = Plan.of(net(0)), Topology.of(net(0))
    assert receive(under_way, encode(update(1, "a"), plan, base=base), "a", base) is None
    assert receive(under_way, encode(update(1, "b"), plan), "c") == "client"  # another's name
    assert receive(under_way, b"junk", "d") == "corrupt"
    assert list(under_way.door.accepted) == ["a"]
    assert [(c, reason) for c, reason, _ in under_way.door.rejected] == [("c", "client"), ("d", "corrupt")]


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ({"weights": "averge"}, "did you mean 'average'"),
        ({"weights": "magnitude"}, "only averages are weighted"),
        ({"over": "x"}, "over is 'x'"), ({"scope": "x"}, "scope is 'x'"), ({"min_fit": 0}, "min_fit is 0"),
        ({"align": "weight"}, "did you mean 'weights'"), ({"clip": -1.0}, "clip is -1.0"),
        ({"noise": 1.0, "by_examples": False}, "give clip= too"), ({"noise": -1.0}, "noise is -1.0"),
        ({"noise": 1.0, "clip": 1.0}, "all count alike"),
    ],
)  # fmt: skip
def test_strategies_that_cannot_be(choice, sentence):
    with pytest.raises(InputError, match=sentence):
        SparseMerge(**choice)


def test_bounds_of_trust_are_positive():
    with pytest.raises(InputError, match="largest is 0"):
        Trust(largest=0)
    with pytest.raises(InputError, match=r"share is 0\.5"):
        TrimmedMean(0.5)
