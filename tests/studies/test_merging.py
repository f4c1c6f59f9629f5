"""Merging by all rules: what is put together is what merging at once would give."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch

from regraft import measure
from regraft.data import Data
from regraft.merging import merge
from regraft.studies.merging import (
    BIAS_RULES,
    WEIGHT_RULES,
    best,
    mean_grid,
    merge_by_all_rules,
    nnstd_matrix,
    pairs,
    ranking,
    with_biases,
)
from regraft.studies.networks import Network
from regraft.topology import Topology
from regraft.train import seeds


@pytest.fixture(scope="module")
def merged(networks: list[Network], digits: Data):
    return merge_by_all_rules(networks, digits.test, seed=5)


@pytest.mark.parametrize("resparsified", [False, True])
@pytest.mark.parametrize(
    ("weights", "biases"), [("magnitude", "random"), ("random", "addition"), ("average",) * 2]
)
def test_a_pair_of_rules_equals_one_merge(networks, digits, merged, weights, biases, resparsified) -> None:
    density = "keep" if resparsified else None
    model = merge([n.model for n in networks], weights, biases, density, generator=seeds.stream(5, "merge"))
    expected = measure.evaluate(model, digits.test)
    found = next(
        m for m in merged if (m.weights, m.biases, m.resparsified) == (weights, biases, resparsified)
    )
    assert (found.accuracy, found.loss) == (expected["accuracy"], expected["loss"])
    assert found.density == Topology.of(model).density
    assert found.nnstd == tuple(Topology.of(model).nnstd(n.topology) for n in networks)


def test_every_pair_of_rules_is_there_once(merged) -> None:
    seen = [(m.weights, m.biases, m.resparsified) for m in merged]
    assert len(seen) == len(set(seen)) == len(WEIGHT_RULES) * len(BIAS_RULES) * 2 == 50
    assert {m.parents for m in merged} == {("seed 0", "seed 1", "seed 2")}


def test_resparsified_networks_have_the_parents_density(networks, merged) -> None:
    parents = networks[0].topology.density
    for m in merged:
        assert m.density == parents if m.resparsified else m.density > parents


def test_a_network_merged_with_itself_is_itself(networks, digits) -> None:
    n = networks[0]
    found = merge_by_all_rules([n, n], digits.test, weights=["magnitude"], biases=["average"])
    assert [m.accuracy for m in found] == [n.accuracy] * 2
    assert [m.nnstd for m in found] == [(0.0, 0.0)] * 2
    assert all(m.with_itself for m in found)


def test_the_same_seed_gives_the_same_merges(networks, digits, merged) -> None:
    assert merge_by_all_rules(networks, digits.test, seed=5) == merged
    other = merge_by_all_rules(networks, digits.test, seed=6)
    differ = {m.weights for m, o in zip(merged, other, strict=True) if m != o}
    assert "random" in differ
    assert "average" not in {
        m.weights for m, o in zip(merged, other, strict=True) if m != o and m.biases != "random"
    }


def test_advance_is_called_for_each_merge(networks, digits) -> None:
    calls = []
    merge_by_all_rules(networks[:2], digits.test, biases=["average"], advance=lambda: calls.append(1))
    assert len(calls) == 10


def test_with_biases_takes_biases_only(networks) -> None:
    a, b = networks[0].model, networks[1].model
    both = with_biases(a, b)
    state, of_a, of_b = both.state_dict(), a.state_dict(), b.state_dict()
    for name, tensor in state.items():
        assert torch.equal(tensor, of_b[name] if name.endswith("bias") else of_a[name]), name
    assert not any(torch.equal(of_a[n], of_b[n]) for n in state if n.endswith("bias"))


def test_means_and_rankings(merged) -> None:
    after = [m for m in merged if m.resparsified]
    grid = mean_grid(merged, "accuracy")
    i, j = WEIGHT_RULES.index("addition"), BIAS_RULES.index("random")
    cell = [m.accuracy for m in merged if (m.weights, m.biases) == ("addition", "random")]
    assert grid[i][j] == fmean(cell)
    ranked = ranking(after)
    assert [value for _, value in ranked] == sorted((v for _, v in ranked), reverse=True)
    assert dict(ranked)["random"] == fmean(m.accuracy for m in after if m.weights == "random")
    assert best(after).accuracy == max(m.accuracy for m in after)


def test_pairs(networks) -> None:
    assert len(pairs(networks)) == 3
    assert len(pairs(networks, with_itself=True)) == 6
    assert all(a is not b for a, b in pairs(networks))


def test_distances_are_a_metric_table(networks) -> None:
    matrix = nnstd_matrix(networks)
    assert all(matrix[i][i] == 0 for i in range(3))
    assert all(matrix[i][j] == matrix[j][i] for i in range(3) for j in range(3))
    assert 0 < matrix[0][1] < 1
