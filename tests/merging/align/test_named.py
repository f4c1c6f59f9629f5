"""merge(align=...): aligned copies merge, scale counts for nothing, files as well as models."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.graph.zoo import network
from tests.merging.align.test_scale import close, scaled
from torch import Tensor, nn

from regraft import ActivationMatching, Topology, WeightMatching, load, merge, save, sparsify
from regraft import graph as graphs
from regraft.errors import InputError, MismatchError
from regraft.files import NetworkFile
from regraft.graph import take
from regraft.merging import normalise_scale
from regraft.models import build
from regraft.probe import Probe


def net(seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    return sparsify(build("mlp:5-8-6-3", init="torch", generator=generator), density=0.5, generator=generator)


def permuted(model: nn.Module, seed: int) -> nn.Module:
    graph = graphs.trace(model)
    generator = torch.Generator().manual_seed(seed)
    return take(model, graph, {g.name: torch.randperm(g.units, generator=generator) for g in graph.free})


X = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
PROBE = Probe(batches=[(X, torch.zeros(60))])


@pytest.mark.parametrize("align", ["weights", WeightMatching(to="mean")])
@pytest.mark.parametrize("rule", ["average", "magnitude", "random"])
def test_permuted_copies_merge_into_the_same_function(align: Any, rule: str) -> None:
    model = net(0)
    copies = [model, permuted(model, 1), permuted(model, 2)]
    merged = merge(copies, rule, rule, align=align)
    torch.testing.assert_close(merged(X), model(X))
    assert Topology.of(merged) == Topology.of(model)
    assert not torch.allclose(merge(copies, rule, rule)(X), model(X), atol=1e-3)


@pytest.mark.parametrize("weights", ["average", "magnitude", "addition"])
@pytest.mark.parametrize("options", [{"align": "weights"}, {"normalise": True}, {"align": "activations"}])
def test_a_rescaled_parent_changes_nothing(weights: str, options: dict[str, Any]) -> None:
    """Three times the weights into a ReLU layer, a third of those out of it."""
    a, b = net(0).double(), net(1).double()
    probe = Probe(batches=[(X.double(), torch.zeros(60))])
    by_three, by_fifth = torch.full((8,), 3.0).double(), torch.full((6,), 0.2).double()
    louder = scaled(scaled(b, "fc1", "fc2", by_three), "fc2", "fc3", by_fifth)
    expected, found = (merge([a, other], weights, probe=probe, **options) for other in (b, louder))
    assert Topology.of(found) == Topology.of(expected)
    assert close(found, expected)
    assert not close(merge([a, louder], weights, density=None), merge([a, b], weights, density=None))


def test_what_is_aligned_is_what_is_merged() -> None:
    models = [net(seed) for seed in range(3)]
    before = copy.deepcopy(models)
    for align in (WeightMatching(), ActivationMatching(to="mean")):
        one = merge(models, "average", align=align, probe=PROBE)
        assert close(one, merge(align(models, probe=PROBE), "average"), 0.0)
        assert close(one, merge(models, "average", align=align, probe=PROBE), 0.0)
    by_hand = merge([normalise_scale(m) for m in models], "average")
    assert close(merge(models, "average", normalise=True), by_hand, 0.0)
    assert all(close(a, b, 0.0) for a, b in zip(models, before, strict=True))


def test_names_files_and_what_a_file_says_of_it(tmp_path: Path) -> None:
    models = [net(seed) for seed in range(2)]
    paths = [tmp_path / "a", tmp_path / "b"]
    for model, path in zip(models, paths, strict=True):
        save(model, path)
    expected = merge(models, align=WeightMatching())
    assert close(merge(paths, align="weights", out=tmp_path / "m"), expected, 0.0)
    assert close(load(tmp_path / "m"), expected, 0.0)
    file = NetworkFile(tmp_path / "m")
    made = file.header.provenance
    file.close()
    assert made["merge"]["align"] == "weights"
    assert [p["file"] for p in made["parents"]] == [str(p) for p in paths]
    by_data = merge([paths[0], models[1]], align="activations", probe=PROBE)
    assert close(by_data, merge(models, align=ActivationMatching(), probe=PROBE), 0.0)


def test_a_rule_of_ones_own() -> None:
    def reversed_units(
        models: Sequence[nn.Module], graph: Any = None, *, probe: Any = None, generator: Any = None
    ) -> list[nn.Module]:
        graph = graphs.trace(models[0])
        turn: dict[str, Tensor] = {g.name: torch.arange(g.units).flip(0) for g in graph.free}
        return [take(model, graph, turn) for model in models]

    models = [net(seed) for seed in range(2)]
    assert close(merge(models, align=reversed_units), merge(reversed_units(models)), 0.0)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="unknown alignment 'weigths': did you mean 'weights'"):
        merge([net(0), net(1)], align="weigths")
    with pytest.raises(InputError, match="takes two or more networks, but got 1"):
        merge([net(0)], align="weights")
    with pytest.raises(InputError, match="activation matching needs at least one batch"):
        merge([net(0), net(1)], align="activations")
    with pytest.raises(MismatchError, match="networks to merge must share one architecture"):
        merge([net(0), build("mlp:5-9-6-3")], align="weights")
    images = [network("vgg", seed=seed) for seed in range(2)]
    with pytest.raises(InputError, match="input shape of the Sequential is not known"):
        merge(images, align="weights")
    assert merge(images, align="weights", normalise=True, probe=Probe(input_shape=(3, 8, 8))) is not None
