"""Networks side by side compute the mean of their outputs."""

from __future__ import annotations

import pytest
import torch
from tests.graph.zoo import ZOO, network, samples
from torch import Tensor, nn

from regraft import Topology
from regraft.errors import InputError, MismatchError
from regraft.graph import activations, check, concatenate, take, trace

MIXED = ("tokens", "vit", "packed", "one head", "encoder")
WHOLE = [name for name in ZOO if name not in MIXED]  # layer normalisation cannot stand side by side


@pytest.mark.parametrize("density", [None, 0.4])
@pytest.mark.parametrize("name", WHOLE)
def test_the_large_network_computes_the_mean(name: str, density: float | None) -> None:
    parents = [network(name, seed=seed, density=density) for seed in range(3)]
    before = [{k: v.clone() for k, v in p.state_dict().items()} for p in parents]
    graph = trace(parents[0], ZOO[name][1])
    large, groups = concatenate(parents, graph)
    x = samples(name)
    torch.testing.assert_close(large(x), sum(p(x) for p in parents) / 3, rtol=1e-9, atol=1e-9)
    check(large, groups)
    assert [g.units for g in groups.free] == [3 * g.units for g in graph.free]
    for parent, state in zip(parents, before, strict=True):
        assert all(torch.equal(v, state[k]) for k, v in parent.state_dict().items())


@pytest.mark.parametrize("name", ["mlp", "lenet", "vgg", "resnet-18", "wrn"])
def test_its_groups_are_those_that_tracing_finds(name: str) -> None:
    parents = [network(name, seed=seed) for seed in range(2)]
    large, groups = concatenate(parents, trace(parents[0], ZOO[name][1]))
    assert trace(large, ZOO[name][1]) == groups


@pytest.mark.parametrize("density", [None, 0.4])
@pytest.mark.parametrize("name", WHOLE)
def test_one_networks_units_taken_back_give_its_share(name: str, density: float | None) -> None:
    parents = [network(name, seed=seed, density=density) for seed in range(2)]
    graph = trace(parents[0], ZOO[name][1])
    large, groups = concatenate(parents, graph)
    second = take(large, groups, {g.name: torch.arange(g.units // 2, g.units) for g in groups.free})
    tensors, own = second.state_dict(), parents[1].state_dict()
    outputs = {s.tensor for g in graph if g.fixed for s in g.slots}
    compared = 0
    for entry, tensor in own.items():
        if tensor.is_floating_point() and not any(entry.startswith(o) for o in outputs):
            assert torch.equal(tensors[entry], tensor), entry
            compared += 1
    assert compared > 0


def test_units_keep_their_order_and_say_what_they_said() -> None:
    parents = [network("resnet-20", seed=seed) for seed in range(2)]
    graph = trace(parents[0])
    large, groups = concatenate(parents, graph)
    x = samples("resnet-20")
    together = activations(large, groups, x)
    apart = [activations(p, graph, x) for p in parents]
    for name, values in together.items():
        torch.testing.assert_close(values, torch.cat([a[name] for a in apart], dim=1))


def test_sparse_networks_have_no_connections_between_them() -> None:
    parents = [network("mlp", seed=seed, density=0.4) for seed in range(2)]
    large, _ = concatenate(parents, trace(parents[0]))
    assert Topology.of(large).nnz == sum(Topology.of(p).nnz for p in parents)


def test_shared_inputs_that_reach_the_output_are_averaged_where_they_meet() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(7, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.cat([x, torch.relu(self.a(x))], dim=1))

    parents = [Wide().double() for _ in range(2)]
    large, _ = concatenate(parents, trace(parents[0]))
    x = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(large(x), (parents[0](x) + parents[1](x)) / 2)


class _Padded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 6, 1), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(x))
        return self.out((self.b(y) + nn.functional.pad(y, (0, 0, 0, 0, 2, 2))).mean((2, 3)))


class _Output(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(self.a(x))


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lambda: network("tokens"), (4, 6), "normalises over all units of 'embed'"),
        (_Padded, (1, 2, 2), "does not run with more units"),
        (_Output, (3,), "end the network with a layer of its own"),
    ],
)
def test_what_cannot_stand_side_by_side(make, shape: tuple[int, ...], message: str) -> None:
    parents = [make(), make()]
    with pytest.raises(InputError, match=message):
        concatenate(parents, trace(parents[0], shape))


def test_values_that_all_units_share_must_be_equal() -> None:
    def make(slope: float) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 4), nn.PReLU(init=slope), nn.Linear(4, 2))

    equal = [make(0.1), make(0.1)]
    concatenate(equal, trace(equal[0]))
    with pytest.raises(InputError, match=r"'1.weight' has other values in each network"):
        concatenate([make(0.1), make(0.2)], trace(equal[0]))


def test_bad_networks() -> None:
    model = network("mlp")
    graph = trace(model)
    with pytest.raises(InputError, match="at least two networks, but got 1"):
        concatenate([model], graph)
    with pytest.raises(MismatchError, match="network 2 has a sparse"):
        concatenate([model, network("mlp", density=0.5)], graph)
    with pytest.raises(MismatchError, match=r"a dense \(6, 7\) 'fc1.weight', but network 2 has no"):
        concatenate([model, network("vgg")], graph)
