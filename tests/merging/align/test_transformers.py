"""Transformers in one numbering: hidden permutations are found again, merges of copies are the original."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from tests.graph.zoo import permutations
from torch import nn

import regraft
from regraft import ActivationMatching, WeightMatching, models, sparsify
from regraft.graph import Group, Heads, take, trace
from regraft.merging import normalise_scale
from regraft.merging.align.descent import matched
from regraft.probe import Probe


def network(name: str, seed: int = 0, activation: str = "gelu", density: float = 0.4) -> nn.Module:
    g = torch.Generator().manual_seed(seed)
    shape = (10,) if name.startswith("gpt") else (1, 8, 8)
    model = models.build(name, input_shape=shape, classes=11, activation=activation, generator=g)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=g)
    return sparsify(model, density, generator=g).eval()


def inputs(model: nn.Module, n: int = 32) -> torch.Tensor:
    shape = (n, *model.spec["input"])  # type: ignore[index]
    return torch.randint(0, 11, shape, generator=torch.Generator().manual_seed(5)).float()


@pytest.mark.parametrize("name", ["gpt:2-16-4", "vit:1-16-2-4"])
@pytest.mark.parametrize("by", ["weights", "activations"])
def test_a_hidden_permutation_is_found_again(name: str, by: str) -> None:
    model = network(name)
    graph, x = trace(model), inputs(model)
    hidden = permutations(graph, 1)
    align = WeightMatching() if by == "weights" else ActivationMatching()
    orders = align.orders([model, take(model, graph, hidden)], probe=Probe(batches=[(x, x)]))[1]
    for group, order in hidden.items():
        assert torch.equal(order[orders[group]], torch.arange(len(order))), group


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_merge_with_a_permuted_copy_is_the_original(activation: str) -> None:
    model = network("gpt:2-16-4", activation=activation)
    turned, x = take(model, trace(model), permutations(trace(model), 2)), inputs(model)
    aligned = regraft.merge([model, turned], weights="average", align="weights")
    naive = regraft.merge([model, turned], weights="average")
    torch.testing.assert_close(aligned(x), model(x), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(naive(x), model(x), atol=0.1)
    assert regraft.Topology.of(aligned) == regraft.Topology.of(model)


def test_aligned_networks_compute_what_they_did() -> None:
    parents = [network("gpt:2-16-4", seed) for seed in range(3)]
    x = inputs(parents[0])
    for align in (WeightMatching(to="mean"), ActivationMatching(to="mean")):
        for before, after in zip(parents, align(parents, probe=Probe(batches=[(x, x)])), strict=True):
            torch.testing.assert_close(after(x), before(x), rtol=1e-4, atol=1e-4)


def test_the_values_of_attention_have_a_canonical_scale() -> None:
    model = network("gpt:1-16-4", activation="relu")
    loud, x = regraft.merge([model]), inputs(model)
    attention = loud.blocks.block1.attention
    with torch.no_grad():
        attention.value.weight.values *= 3
        attention.value.bias *= 3
        attention.out.weight.values /= 3
    torch.testing.assert_close(loud(x), model(x), rtol=1e-4, atol=1e-4)
    a, b = normalise_scale(model), normalise_scale(loud)
    torch.testing.assert_close(a(x), model(x), rtol=1e-4, atol=1e-4)
    first, second = (m.blocks.block1.attention for m in (a, b))
    torch.testing.assert_close(first.value.weight.values, second.value.weight.values, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(first.value.weight.values, attention.value.weight.values)


@pytest.mark.parametrize("seed", range(4))
def test_heads_are_matched_as_well_as_they_can_be(seed: int) -> None:
    """Against all orders that keep heads whole, tried one by one."""
    rng = np.random.default_rng(seed)
    bundle = [Group("q", 6, (), heads=Heads("a", 3)), Group("v", 9, (), heads=Heads("a", 3))]
    likeness = {group.name: rng.normal(size=(group.units, group.units)) for group in bundle}
    found = matched(bundle, likeness)

    def worth(group: Group, order: list[int]) -> float:
        return float(likeness[group.name][np.arange(group.units), order].sum())

    best = -np.inf
    for heads in itertools.permutations(range(3)):
        total = 0.0
        for group in bundle:
            w = group.units // 3
            for a, b in enumerate(heads):
                block = likeness[group.name][a * w : a * w + w, b * w : b * w + w]
                total += max(block[np.arange(w), list(p)].sum() for p in itertools.permutations(range(w)))
        best = max(best, total)
    assert sum(worth(group, found[group.name].tolist()) for group in bundle) == pytest.approx(best)
    heads_of = [(found[g.name].reshape(3, -1) // (g.units // 3))[:, 0].tolist() for g in bundle]
    assert heads_of[0] == heads_of[1]
