"""A gate where units are read: the theorems that make it one, on networks of all kinds, dense and sparse."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from regraft import SparseWeight, models, sparsify
from regraft.errors import InputError, MismatchError
from regraft.gates import Gated, Gates, gate_sizes
from regraft.graph import Graph, Group, Slot, take, trace

NETWORKS = {
    "mlp": ("mlp:12-8-6-3", (12,)),
    "lenet-5": ("lenet-5", (1, 28, 28)),
    "resnet": ("resnet-20", (3, 32, 32)),
    "wide": ("wrn-10-1", (3, 32, 32)),
}


def vgg() -> nn.Sequential:
    """Convolutions with normalisation, pooled twice, then linear layers (Simonyan and Zisserman 2015)."""
    layers: list[nn.Module] = []
    for n_in, n_out in ((3, 6), (6, 8), (8, 5)):
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(20, 7), nn.ReLU(), nn.Dropout(), nn.Linear(7, 3))


class Joined(nn.Module):
    """Two branches side by side, a depthwise convolution, maps that are flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2, 4, 3, padding=1)
        self.depthwise = nn.Conv2d(7, 7, 3, padding=1, groups=7)
        self.mix = nn.Conv2d(7, 5, 1)
        self.out = nn.Linear(5 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([torch.relu(self.left(x)), torch.tanh(self.right(x))], dim=1)
        return self.out(torch.relu(self.mix(torch.sigmoid(self.depthwise(x)))).flatten(1))


def build(name: str, sparse: bool) -> tuple[nn.Module, tuple[int, ...]]:
    """A network with statistics that are not the first ones, in evaluation mode."""
    if name == "joined":
        model, shape = Joined(), (2, 4, 4)
    elif name == "vgg":
        model, shape = vgg(), (3, 16, 16)
    else:
        words, shape = NETWORKS[name]
        model = models.build(words, activation="tanh" if name == "lenet-5" else "relu")
    if sparse:
        sparsify(model, density=0.5, generator=torch.Generator().manual_seed(0))
    model.train()
    with torch.no_grad():
        model(torch.randn(6, *shape))
    return model.eval(), shape


@pytest.fixture(params=[False, True], ids=["dense", "sparse"])
def sparse(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def every_second_closed(sizes: dict[str, int]) -> Tensor:
    return torch.cat([torch.arange(n) % 2 for n in sizes.values()]).float()


@pytest.mark.parametrize("name", [*NETWORKS, "vgg", "joined"])
def test_open_gates_change_nothing_and_closed_ones_cut_the_unit(name: str, sparse: bool) -> None:
    model, shape = build(name, sparse)
    graph = trace(model, shape)
    gated = Gated(model, graph).eval()
    x = torch.randn(3, *shape)
    units = gated.gates.log_alpha.numel()
    assert torch.equal(gated.through(torch.ones(units), x), model(x))
    closed = every_second_closed(gated.gates.sizes)
    kept = {group: v.nonzero().squeeze(1) for group, v in gated.gates.split(closed).items()}
    cut = take(model, graph, kept)
    assert torch.allclose(gated.through(closed, x), cut(x), atol=1e-5)
    assert not torch.allclose(cut(x), model(x), atol=1e-3)


@pytest.mark.parametrize("name", ["mlp", "lenet-5", "joined"])
def test_folded_weights_compute_what_the_gates_do_in_evaluation(name: str, sparse: bool) -> None:
    model, shape = build(name, sparse)
    gated = Gated(model, trace(model, shape), Gates(gate_sizes(trace(model, shape)), spread=2.0)).eval()
    before = deepcopy(model.state_dict())
    x = torch.randn(3, *shape)
    assert torch.allclose(gated.folded()(x), gated(x), atol=1e-5)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def by_hand(model: nn.Sequential, values: Tensor, x: Tensor) -> Tensor:
    """A 12-8-6-3 network whose hidden units are multiplied behind the activation."""
    h1 = torch.relu(model.fc1(x)) * values[:8]
    return model.fc3(torch.relu(model.fc2(h1)) * values[8:])


def test_values_and_gradients_are_those_of_multiplied_activations(sparse: bool) -> None:
    model, shape = build("mlp", sparse)
    model = model.double()
    gated = Gated(model, trace(model, shape)).double()
    x = torch.randn(5, 12, dtype=torch.float64)
    found = []
    for compute in (gated.through, lambda v, x: by_hand(model, v, x)):
        values = torch.linspace(0, 1, 14, dtype=torch.float64, requires_grad=True)
        model.zero_grad()
        compute(values, x).square().sum().backward()
        found.append([values.grad, *(p.grad for p in model.parameters())])
    assert all(torch.allclose(a, b) for a, b in zip(*found, strict=True))


def test_convolutions_have_the_gradients_of_multiplied_activations(sparse: bool) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten())
    model.append(nn.Linear(12, 2))
    if sparse:
        sparsify(model, density=0.6, generator=torch.Generator().manual_seed(0))
    model = model.double()
    gated = Gated(model, trace(model, (2, 6, 6))).double()
    x = torch.randn(5, 2, 6, 6, dtype=torch.float64)

    def multiplied(values: Tensor, x: Tensor) -> Tensor:
        h = model[3](model[2](model[1](model[0](x))) * values[:4, None, None]) * values[4:, None, None]
        return model[5](model[4](h))

    found = []
    for compute in (gated.through, multiplied):
        values = torch.linspace(0.1, 1, 7, dtype=torch.float64, requires_grad=True)
        model.zero_grad()
        compute(values, x).square().sum().backward()
        found.append([values.grad, *(p.grad for p in model.parameters())])
    assert all(torch.allclose(a, b) for a, b in zip(*found, strict=True))


def test_a_residual_stream_has_one_gate_and_its_readers_see_one_value() -> None:
    model, shape = build("resnet", False)
    graph = trace(model, shape)
    gated = Gated(model, graph)
    stream = graph["conv"]
    assert len(stream.of_kind("read")) > 3
    assert gated.gates.sizes["conv"] == stream.units
    drawn = []
    gates = gated.gates.forward
    gated.gates.forward = lambda u=None: drawn.append(1) or gates(u)  # type: ignore[method-assign]
    gated(torch.randn(2, *shape))
    assert len(drawn) == 1


def test_a_sparse_topology_may_change_between_passes() -> None:
    model, shape = build("mlp", True)
    gated = Gated(model, trace(model, shape))
    x, values = torch.randn(4, 12), torch.linspace(0, 1, 14)
    gated.through(values, x)
    weight = model.fc2.weight
    assert isinstance(weight, SparseWeight)
    weight.replace(weight.index[::2], weight.values[::2])
    assert torch.allclose(gated.through(values, x), by_hand(model, values, x), atol=1e-6)


def test_nothing_is_left_on_the_network() -> None:
    model, shape = build("mlp", False)
    gated = Gated(model, trace(model, shape))
    gated(torch.randn(2, *shape))
    with pytest.raises(RuntimeError):
        gated(torch.randn(2, 3))
    assert not any(m._forward_pre_hooks for m in model.modules())
    assert all(
        isinstance(p, nn.Parameter) for m in model.modules() for p in m._parameters.values() if p is not None
    )


def test_many_gated_networks_can_be_trained_at_once() -> None:
    """torch.func.vmap over stacked parameters, with the random numbers passed in."""

    def one(seed: int) -> Gated:
        model = models.build("mlp:5-4-2", generator=torch.Generator().manual_seed(seed))
        return Gated(model, trace(model, (5,)), Gates({"fc1": 4}, seed=seed))

    nets = [one(seed) for seed in range(3)]
    params, buffers = stack_module_state(nets)  # type: ignore[arg-type]
    buffers = {n: b for n, b in buffers.items() if "gates" not in n}
    x, uniform = torch.randn(3, 6, 5), torch.rand(3, 4)

    def forward(params: Any, buffers: Any, x: Tensor, u: Tensor) -> Tensor:
        return functional_call(nets[0], (params, buffers), (x,), {"uniform": u})

    together = vmap(forward)(params, buffers, x, uniform)
    apart = torch.stack([net(x[i], uniform=uniform[i]) for i, net in enumerate(nets)])
    assert torch.allclose(together, apart, atol=1e-6)


def test_gates_may_cover_some_groups_only() -> None:
    model, shape = build("mlp", False)
    gated = Gated(model, trace(model, shape), Gates({"fc2": 6}))
    x = torch.randn(2, *shape)
    values = torch.linspace(0, 1, 6)
    assert torch.allclose(gated.through(values, x), by_hand(model, torch.cat([torch.ones(8), values]), x))


def test_gates_of_other_groups_are_refused() -> None:
    model, shape = build("mlp", False)
    with pytest.raises(InputError, match="unknown group 'fc9'"):
        Gated(model, trace(model, shape), Gates({"fc9": 4}))
    with pytest.raises(MismatchError, match="5 gates for the group 'fc1', which has 8 units"):
        Gated(model, trace(model, shape), Gates({"fc1": 5}))


def test_a_network_without_hidden_units_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(InputError, match="no hidden units"):
        Gated(model, trace(model, (3,)))


def test_groups_that_are_stated_by_hand_do(make_hidden: Callable[[], Graph]) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    gated = Gated(model, make_hidden())
    assert gated.gates.sizes == {"0": 4}


@pytest.fixture
def make_hidden() -> Callable[[], Graph]:
    slots = (Slot("0.weight", 0, "make"), Slot("0.bias", 0, "bias"), Slot("2.weight", 1, "read"))
    return lambda: Graph((Group("0", 4, slots),), (3,))


def test_dense_units_all_count_the_same() -> None:
    for name in ("mlp", "resnet", "joined"):
        model, shape = build(name, False)
        gated = Gated(model, trace(model, shape))
        p = gated.gates.open_probability()
        before = gated.gates.group_means(p)
        gated.count_connections()
        assert torch.allclose(gated.gates.group_means(p), before)


def test_sparse_units_count_by_their_connections_and_dead_ones_nothing() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    sparsify(model, density=1.0)
    keep = torch.tensor([0, 1, 2, 3, 6, 7]), torch.tensor([0, 3, 4])  # unit 3 has no input, 1 and 2 no output
    for layer, index in zip((model[0], model[2]), keep, strict=True):
        layer.weight.replace(index, layer.weight.values.detach()[index])
    gated = Gated(model, trace(model, (3,)))
    gated.count_connections()
    assert gated.gates.averaging.tolist() == [[1, 0, 0, 0]]
    assert gated.gates.group_means(torch.tensor([0.7, 1.0, 1.0, 1.0])).item() == pytest.approx(0.7)


def test_a_group_without_a_living_unit_counts_them_all() -> None:
    model, shape = build("mlp", True)
    for layer in (model.fc1, model.fc2, model.fc3):
        layer.weight.replace(torch.tensor([], dtype=torch.int64), torch.tensor([]))
    gated = Gated(model, trace(model, shape))
    gated.count_connections()
    assert bool(gated.gates.counted.all())
