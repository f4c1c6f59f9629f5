"""Weight matching: a permuted copy is recovered, functions and parents stay, the same seed gives the same."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.graph.zoo import ZOO, network, permutations, samples
from torch import Tensor, nn

from regraft import WeightMatching, sparsify
from regraft import graph as graphs
from regraft.errors import InputError, MismatchError
from regraft.graph import Graph, Group, Slot, take
from regraft.merging import normalise_scale
from regraft.models import build


def same(a: nn.Module, b: nn.Module, tolerance: float = 0.0) -> None:
    """The same tensors, bit for bit or within a tolerance."""
    left, right = a.state_dict(), b.state_dict()
    assert list(left) == list(right)
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("density", [None, 0.5])
@pytest.mark.parametrize("name", ZOO)
def test_a_permuted_copy_is_recovered(name: str, density: float | None) -> None:
    model = network(name, density=density)
    graph = graphs.trace(model, ZOO[name][1])
    turned = take(model, graph, permutations(graph, 1))
    first, aligned = WeightMatching(restarts=1, normalise=False)([model, turned], graph)
    same(first, model)
    same(aligned, model)


@given(st.integers(0, 9999), st.floats(0.2, 1.0), st.lists(st.integers(3, 12), min_size=3, max_size=5))
@settings(max_examples=25)
def test_mlps_of_any_size_are_recovered(seed: int, density: float, sizes: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    model = build(f"mlp:{'-'.join(map(str, sizes))}", init="torch", generator=generator).double()
    sparsify(model, density=density, generator=generator)
    graph = graphs.trace(model)
    turned = take(model, graph, permutations(graph, seed))
    same(WeightMatching(restarts=1, normalise=False)([model, turned])[1], model)


def test_noise_and_scale_do_not_hide_a_copy() -> None:
    model = network("resnet-18", seed=3)
    graph = graphs.trace(model, ZOO["resnet-18"][1])
    turned = take(normalise_scale(model, graph), graph, permutations(graph, 5))
    with torch.no_grad():
        for parameter in turned.parameters():
            parameter += 0.02 * torch.randn(parameter.shape)
    orders = WeightMatching().orders([model, turned], graph)
    expected = permutations(graph, 5)
    assert all(
        torch.equal(expected[name][order], torch.arange(len(order))) for name, order in orders[1].items()
    )


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("name", ZOO)
def test_functions_and_parents_stay(name: str, normalise: bool) -> None:
    models = [network(name, seed=seed, density=0.5) for seed in range(2)]
    before = copy.deepcopy(models)
    graph = graphs.trace(models[0], ZOO[name][1])
    aligned = WeightMatching(restarts=1, normalise=normalise)(models, graph)
    for old, kept, new in zip(before, models, aligned, strict=True):
        same(old, kept)
        torch.testing.assert_close(new(samples(name)), old(samples(name)), rtol=1e-8, atol=1e-8)


def test_orders_are_what_take_applies() -> None:
    models = [network("vgg", seed=seed, density=0.5) for seed in range(2)]
    graph = graphs.trace(models[0], ZOO["vgg"][1])
    matching = WeightMatching(normalise=False)
    orders, aligned = matching.orders(models, graph), matching(models, graph)
    for model, order, moved in zip(models, orders, aligned, strict=True):
        same(take(model, graph, order), moved)
    assert all(torch.equal(order, torch.arange(len(order))) for order in orders[0].values())


@pytest.mark.parametrize("to", ["first", "mean"])
def test_the_same_seed_gives_the_same_result(to: Any) -> None:
    models = [network("mlp", seed=seed, density=0.6) for seed in range(4)]
    matching = WeightMatching(to=to)
    torch.manual_seed(1)
    one = matching(models, generator=torch.Generator().manual_seed(4))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    other = matching(models, generator=torch.Generator().manual_seed(4))
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(one, other, strict=True):
        same(a, b)
    for a, b in zip(matching(models), matching(models), strict=True):
        same(a, b)


def test_more_restarts_are_never_worse() -> None:
    from regraft.merging.align.descent import Pair
    from regraft.merging.align.entries import entries_of

    models = [network("vgg", seed=seed) for seed in range(2)]
    graph = graphs.trace(models[0], ZOO["vgg"][1])
    pair = Pair(graph, *(entries_of(m, graph, 1) for m in models))
    totals = []
    for restarts in (1, 2, 4, 8):
        matching = WeightMatching(restarts=restarts, normalise=False)
        orders = matching.orders(models, graph, generator=torch.Generator().manual_seed(0))
        totals.append(pair.total(orders[1]))
    assert totals == sorted(totals)


@pytest.mark.parametrize("to", ["first", "mean"])
def test_many_permuted_copies_come_together(to: Any) -> None:
    model = network("vgg", density=0.5)
    graph = graphs.trace(model, ZOO["vgg"][1])
    copies = [model, *(take(model, graph, permutations(graph, seed)) for seed in range(3))]
    for aligned in WeightMatching(to=to, normalise=False, restarts=1)(copies, graph):
        same(aligned, model)


def test_the_mean_brings_networks_closer_than_the_first() -> None:
    models = [network("mlp", seed=seed) for seed in range(5)]

    def spread(aligned: list[nn.Module]) -> float:
        flat = torch.stack([torch.cat([p.detach().flatten() for p in m.parameters()]) for m in aligned])
        return float((flat - flat.mean(0)).square().sum())

    first, mean = (WeightMatching(to=to, normalise=False)(models) for to in ("first", "mean"))  # type: ignore[arg-type]
    assert spread(mean) < spread(first) < spread(models)


class Untraceable(nn.Module):
    """Looks at its input's values."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        if x.sum() > 0:
            x = x * 2
        found: Tensor = self.down(torch.relu(x))
        return found


def test_groups_stated_by_hand() -> None:
    hidden = Group("up", 5, (Slot("up.weight", 0, "make"), Slot("up.bias", 0, "bias"),
                             Slot("down.weight", 1, "read")))  # fmt: skip
    graph = Graph((hidden,), (3,))
    model = Untraceable()
    turned = take(model, graph, {"up": torch.tensor([4, 2, 0, 1, 3])})
    same(WeightMatching(normalise=False)([model, turned], graph)[1], model)
    with pytest.raises(InputError, match=r"Untraceable cannot be scaled, .*, pass normalise=False"):
        WeightMatching()([model, turned], graph)


def test_what_cannot_be_aligned() -> None:
    matching, net = WeightMatching(), build("mlp:6-5-3")
    with pytest.raises(InputError, match=r"takes two or more networks, but got 1: pass a list"):
        matching([net])
    with pytest.raises(InputError, match="takes two or more networks, but got 1"):
        matching(net)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="network 2 to align is of type str, but must be a"):
        matching([net, "a.safetensors"])  # type: ignore[list-item]
    with pytest.raises(MismatchError, match=r"has shape \(7, 6\) in network 2 \(Sequential\), but \(5, 6\)"):
        matching([net, build("mlp:6-7-3")])
    with pytest.raises(MismatchError, match="was built with activation 'tanh', but network 1"):
        matching([net, build("mlp:6-5-3", activation="tanh")])
    with pytest.raises(InputError, match="Untraceable cannot be followed, because what it computes"):
        matching([Untraceable(), Untraceable()])
    with pytest.raises(MismatchError, match="does not have"):
        matching([net, net], Graph((Group("a", 5, (Slot("gone.weight", 0, "make"),)),), (6,)))
    for value in (math.nan, math.inf):
        for normalise in (True, False):
            broken = copy.deepcopy(net)
            with torch.no_grad():
                next(broken.parameters())[1, 1] = value
            with pytest.raises(InputError, match=r"of network 2 \(Sequential\) holds NaN or infinite values"):
                WeightMatching(normalise=normalise)([net, broken])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"restarts": 0}, "restarts is 0, but must be a whole number of 1 or more"),
        ({"restarts": True}, "restarts is True"),
        ({"max_passes": 1.5}, "max_passes is 1.5"),
        ({"rounds": -1}, "rounds is -1"),
        ({"tolerance": -0.1}, "tolerance is -0.1, but must be 0 or more"),
        ({"tolerance": math.nan}, "tolerance is nan"),
        ({"to": "last"}, "unknown reference 'last'"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        WeightMatching(**options)
