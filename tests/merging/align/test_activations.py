"""Activation matching: likeness is the textbook correlation, a copy is recovered, dead units do no harm."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from tests.graph.zoo import ZOO, network, permutations, samples
from torch import Tensor, nn

from regraft import ActivationMatching
from regraft import graph as graphs
from regraft.errors import InputError, MismatchError
from regraft.graph import take
from regraft.merging.align.activations import _Moments
from regraft.models import build
from regraft.probe import Probe


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def probe_of(*batches: Tensor) -> Probe:
    return Probe(batches=[(x, torch.zeros(len(x))) for x in batches])


def mlps(count: int) -> list[nn.Module]:
    return [build("mlp:5-8-6-3", generator=torch.Generator().manual_seed(s)) for s in range(count)]


@pytest.mark.parametrize("measure", ["correlation", "covariance"])
@pytest.mark.parametrize("density", [None, 0.6])
@pytest.mark.parametrize("name", ["mlp", "vgg", "resnet-18", "tokens", "vit", "packed"])
def test_a_permuted_copy_is_recovered(name: str, density: float | None, measure: Any) -> None:
    """Every unit meets one that says the same."""
    model = network(name, density=density)
    graph = graphs.trace(model, ZOO[name][1])
    turned = take(model, graph, permutations(graph, 1))
    x = samples(name, 12)
    aligned = ActivationMatching(measure, normalise=False)([model, turned], graph, probe=probe_of(x))[1]
    torch.testing.assert_close(aligned(x), model(x), rtol=1e-8, atol=1e-8)
    own, new = graphs.activations(model, graph, x), graphs.activations(aligned, graph, x)
    for group in graph.free:
        own_c, new_c = (a - a.mean(0) for a in (own[group.name], new[group.name]))
        torch.testing.assert_close(new_c, own_c, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("batches", [[50], [10, 40], [25, 24, 1]])
def test_likeness_is_the_textbook_correlation(batches: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(50, 4, generator=generator, dtype=torch.float64) + 100
    b = torch.randn(50, 4, generator=generator, dtype=torch.float64) * 3 + a
    a[:, 2], b[:, 1] = 7.0, 0.1  # constant
    moments = _Moments([(0, 1)])
    for x, y in zip(torch.split(a, batches), torch.split(b, batches), strict=True):
        moments.add([x, y])
    both = torch.cat([a[:, [0, 1, 3]], b[:, [0, 2, 3]]], 1).T.numpy()
    for measure, full in (("correlation", np.corrcoef(both)), ("covariance", np.cov(both, bias=True))):
        expected = np.zeros((4, 4))
        expected[np.ix_([0, 1, 3], [0, 2, 3])] = full[:3, 3:]
        found = moments.likeness(measure)  # type: ignore[arg-type]
        np.testing.assert_allclose(found[0, 1], expected, atol=1e-10)
        np.testing.assert_allclose(found[1, 0], expected.T, atol=1e-10)


@torch.no_grad()
def test_dead_units_change_nothing() -> None:
    models = mlps(2)
    for model in models:
        layer = model.get_submodule("fc1")
        layer.weight[:3], layer.bias[:3] = 0.0, -1.0  # type: ignore[index,operator]
    x = torch.randn(30, 5)
    orders = ActivationMatching().orders(models, probe=probe_of(x))
    assert sorted(orders[1]["fc1"].tolist()) == list(range(8))
    aligned = ActivationMatching()(models, probe=probe_of(x))[1]
    torch.testing.assert_close(aligned(x), models[1](x))


@pytest.mark.parametrize("to", ["first", "mean"])
def test_parents_stay_and_the_same_data_give_the_same_result(to: Any) -> None:
    models = mlps(4)
    before = copy.deepcopy(models)
    x = torch.randn(40, 5)
    matching = ActivationMatching(to=to)
    one = matching(models, probe=probe_of(x[:20], x[20:]), generator=torch.Generator().manual_seed(3))
    other = matching(models, probe=probe_of(x[:20], x[20:]), generator=torch.Generator().manual_seed(3))
    assert all(same(a, b) for a, b in zip(one, other, strict=True))
    assert all(same(a, b) for a, b in zip(models, before, strict=True))
    for a, b in zip(one, models, strict=True):
        torch.testing.assert_close(a(x), b(x), rtol=1e-4, atol=1e-5)


def test_many_copies_come_together() -> None:
    model = network("mlp")
    graph = graphs.trace(model)
    copies = [model, *(take(model, graph, permutations(graph, seed)) for seed in range(3))]
    x = samples("mlp", 20)
    own = graphs.activations(model, graph, x)
    for aligned in ActivationMatching(to="mean", normalise=False)(copies, probe=probe_of(x)):
        new = graphs.activations(aligned, graph, x)
        assert all(torch.allclose(new[name], own[name]) for name in own)


def test_bad_input() -> None:
    models, x = mlps(2), torch.randn(4, 5)
    with pytest.raises(InputError, match="activation matching needs at least one batch"):
        ActivationMatching()(models)
    with pytest.raises(InputError, match="takes two or more networks, but got 1"):
        ActivationMatching()(models[:1], probe=probe_of(x))
    with pytest.raises(MismatchError, match="does not take samples of shape"):
        ActivationMatching()(models, probe=probe_of(torch.randn(4, 7)))
    with pytest.raises(InputError, match="are NaN or infinite"):
        ActivationMatching()(models, probe=probe_of(x / 0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": "cosine"}, "unknown measure 'cosine'"),
        ({"to": "last"}, "unknown reference 'last'"),
        ({"rounds": 0}, "rounds is 0, but must be"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ActivationMatching(**options)
