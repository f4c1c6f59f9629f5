"""Weights, layers and topologies on a device."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tests.devices.features import CPU, batches, convolutional, images, mlp, on, same, seeded
from torch import Tensor, nn

from regraft import SparseWeight, Topology, allocate, densify, kernels, set_topology, sparsify


def gradients(model: nn.Module, x: Tensor) -> Any:
    """Output, and gradients of the input and all parameters."""
    x = x.detach().requires_grad_()
    y = model(x)
    return [y, *torch.autograd.grad(y.square().sum(), [x, *model.parameters()])]


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(6, 5), (7, 6)),
    "linear without bias, three dimensions": (nn.Linear(6, 5, bias=False), (2, 3, 6)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (3, 4, 9)),
    "conv2d": (nn.Conv2d(3, 4, 3, padding="same"), (2, 3, 6, 5)),
    "conv2d, reflected": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (2, 3, 6, 5)),
    "conv3d": (nn.Conv3d(2, 3, 2, dilation=2), (1, 2, 4, 5, 4)),
}


@pytest.mark.parametrize("mode", kernels.dispatch.MODES)
@pytest.mark.parametrize("name", LAYERS)
def test_layers(device: torch.device, name: str, mode: str) -> None:
    """A mode that no kernel serves there computes through dense weights."""

    def run(where: torch.device) -> Any:
        layer, shape = LAYERS[name]
        sparse = sparsify(nn.Sequential(copy.deepcopy(layer)), density=0.4, generator=seeded()).to(where)
        return gradients(sparse, torch.randn(shape, generator=seeded()).to(where))

    with kernels.use(mode):
        assert on(same(run, device), device)


def test_second_derivatives_and_torch_func(device: torch.device) -> None:
    def run(where: torch.device) -> Any:
        model, (x, _) = mlp(where), batches(where)[0]
        (first,) = torch.autograd.grad(model(x).square().sum(), [model[0].weight.values], create_graph=True)
        second = torch.autograd.grad(first.square().sum(), list(model.parameters()))
        each = torch.func.vmap(lambda row: model(row))(x)
        return first, second, each

    same(run, device)


@pytest.mark.parametrize("allocation", [allocate.uniform, allocate.erdos_renyi, allocate.erdos_renyi_kernel])
@pytest.mark.parametrize("init", ["rescale", "keep"])
def test_a_model_that_lies_there_becomes_sparse_there(
    device: torch.device, allocation: Any, init: Any
) -> None:
    def run(where: torch.device) -> Any:
        model = convolutional(where, density=None)
        sparsify(model, density=0.3, allocate=allocation, init=init, generator=seeded())
        sparse = copy.deepcopy(model)
        return sparse, densify(model), Topology.of(sparse).nnz

    assert on(same(run, device), device)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_move_there_and_back(device: torch.device, name: str) -> None:
    layer = sparsify(nn.Sequential(copy.deepcopy(LAYERS[name][0])), density=0.5, generator=seeded())
    before = copy.deepcopy(layer.state_dict())
    there = layer.to(device)
    assert on(there, device)
    assert on(copy.deepcopy(there), device)
    back = there.to(CPU)
    assert all(torch.equal(t, before[n]) for n, t in back.state_dict().items())


def test_weights_are_rewired_and_replaced(device: torch.device) -> None:
    def run(where: torch.device) -> Any:
        weight = SparseWeight.from_dense((torch.eye(4) * 3).to(where))
        parts = [weight.rows(), weight.columns(), weight.input_units(), weight.dense(), weight()]
        moved = weight.rewire(torch.tensor([0, 2, 5, 9]), torch.tensor([7.0, 8.0]))
        between = weight.dense().clone()
        weight.replace(torch.tensor([1]), torch.tensor([2.5]))
        return parts, tuple(moved), between, weight, SparseWeight.from_dense(between, torch.tensor([1, 2]))

    assert on(same(run, device), device)


def test_a_state_of_another_topology_is_taken_from_any_device(device: torch.device) -> None:
    def run(where: torch.device) -> Any:
        model, other = mlp(where, 0), mlp(CPU, 1, density=0.2)
        model.load_state_dict(other.state_dict())
        back = mlp(CPU, 2)
        back.load_state_dict(model.state_dict())
        return model, model(batches(where)[0][0]), back

    model, y, back = same(run, device)
    assert on([model, y], device)
    assert on(back, CPU)


def test_topologies(device: torch.device) -> None:
    """What is asked of a model there is a topology like any other; sets of two devices meet."""

    def run(where: torch.device) -> Any:
        a, b = Topology.of(mlp(where, 0)), Topology.of(mlp(CPU, 1))
        sets = [a | b, a & b, a - b, b - a]
        numbers = [a.nnz, a.density, a.nnstd(b), a == b, a == Topology.of(mlp(CPU, 0))]
        return [{n: c.index for n, c in t.items()} for t in sets], numbers

    same(run, device)


@pytest.mark.parametrize("init", ["zeros", "fan_in", "dense_fan_in"])
def test_set_topology(device: torch.device, init: Any) -> None:
    def run(where: torch.device) -> Any:
        model, wanted = mlp(where, 0), Topology.of(mlp(CPU, 1, density=0.5))
        optimizer = torch.optim.Adam(model.parameters())
        model(batches(where)[0][0]).sum().backward()
        optimizer.step()
        set_topology(model, optimizer, wanted, init=init, generator=seeded())
        state = [dict(optimizer.state[p]) for p in model.parameters()]
        return model, state, Topology.of(model) == wanted

    model, _, equal = same(run, device)
    assert on(model, device)
    assert equal


def test_images_pass_through_a_network_in_evaluation(device: torch.device) -> None:
    same(lambda d: convolutional(d).eval()(images(d)[0][0]), device)


def test_a_layer_elsewhere_than_its_input_is_torchs_error(device: torch.device) -> None:
    model, (x, _) = mlp(device), batches(CPU)[0]
    with pytest.raises(RuntimeError, match="device"):
        model(x)
    with pytest.raises(RuntimeError, match="device"):
        mlp(CPU)(x.to(device))
