"""The canonical scale: the function stays, a rescaled network comes back, nothing has a smaller norm."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.graph.zoo import ZOO, network, samples
from torch import Tensor, nn

from regraft import graph as graphs
from regraft import sparsify
from regraft.errors import InputError, MismatchError
from regraft.graph import Graph
from regraft.merging import normalise_scale
from regraft.models import build
from regraft.weight import SparseWeight


def close(a: nn.Module, b: nn.Module, tolerance: float = 1e-7) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.allclose(x, y, rtol=tolerance, atol=tolerance) for x, y in pairs)


@torch.no_grad()
def scaled(model: nn.Module, made: str, read: str, factor: Tensor) -> nn.Module:
    """A copy of an MLP with one layer's units multiplied and the next layer's inputs divided."""
    found = copy.deepcopy(model)
    for name, axis, f in ((made, 0, factor), (read, 1, 1 / factor)):
        weight = found.get_submodule(name).weight
        if isinstance(weight, SparseWeight):
            at = weight.rows() if axis == 0 else weight.input_units()
            weight.values *= f[at]
        else:
            weight *= f.view(-1, 1) if axis == 0 else f.view(1, -1)  # type: ignore[operator]
    found.get_submodule(made).bias *= factor  # type: ignore[operator]
    return found


@pytest.mark.parametrize("density", [None, 0.3])
@pytest.mark.parametrize("name", ZOO)
def test_the_function_stays_and_so_does_the_model(name: str, density: float | None) -> None:
    model = network(name, density=density)
    before = copy.deepcopy(model)
    made = normalise_scale(model, graphs.trace(model, ZOO[name][1]))
    torch.testing.assert_close(made(samples(name)), model(samples(name)), rtol=1e-9, atol=1e-9)
    assert close(model, before, 0.0)
    assert close(normalise_scale(made, graphs.trace(model, ZOO[name][1])), made)


@given(st.integers(0, 9999), st.floats(0.1, 10.0))
@settings(max_examples=20)
def test_a_rescaled_network_comes_back(seed: int, factor: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    model = build("mlp:4-6-5-3", init="torch", generator=generator).double()
    sparsify(model, density=0.7, generator=generator)
    by_layer = torch.full((6,), factor, dtype=torch.float64)
    other = scaled(model, "fc1", "fc2", by_layer)
    assert close(normalise_scale(other), normalise_scale(model))


def test_each_unit_by_its_own_factor() -> None:
    model = network("mlp")
    other = scaled(model, "fc1", "fc2", torch.tensor([3.0, 0.1, 1.0, 7.0, 0.5, 2.0]).double())
    assert not close(other, model)
    assert close(normalise_scale(other), normalise_scale(model))


@pytest.mark.parametrize(
    ("name", "conv", "norm"),
    [
        ("resnet-18", "3.conv1", "3.bn1"),
        ("resnet-20", "conv", "norm"),
        ("wrn", "group1_1.conv1", "group1_1.norm2"),
        ("vgg", "0", "1"),
    ],
)
@torch.no_grad()
def test_convolutions_before_a_normalisation(name: str, conv: str, norm: str) -> None:
    """Three times the weights, and statistics that follow; the epsilon, which does not, is 0."""
    model = network(name)
    graph = graphs.trace(model, ZOO[name][1])
    model.get_submodule(norm).eps = 0.0
    other = copy.deepcopy(model)
    for parameter in other.get_submodule(conv).parameters():
        parameter *= 3.0
    other.get_submodule(norm).running_mean *= 3.0  # type: ignore[operator]
    other.get_submodule(norm).running_var *= 9.0  # type: ignore[operator]
    assert torch.allclose(other(samples(name)), model(samples(name)))
    assert close(normalise_scale(other, graph), normalise_scale(model, graph))


def test_units_are_balanced_and_the_sum_of_squares_is_least() -> None:
    model = network("mlp")
    made = normalise_scale(model)
    layers = [m for m in made.modules() if isinstance(m, nn.Linear)]
    for before, after in itertools.pairwise(layers):
        into = before.weight.square().sum(1) + before.bias.square()
        torch.testing.assert_close(into, after.weight.square().sum(0))

    def size(net: nn.Module) -> float:
        return sum(float(p.detach().square().sum()) for p in net.parameters())

    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        factor = torch.empty(6, dtype=torch.float64).uniform_(0.7, 1.4, generator=generator)
        other = scaled(made, "fc1", "fc2", factor)
        assert size(other) > size(made)


def test_a_convolution_that_only_a_normalisation_reads() -> None:
    model = network("vgg")
    made = normalise_scale(model, graphs.trace(model, ZOO["vgg"][1]))
    norms = made[0].weight.square().sum((1, 2, 3)) + made[0].bias.square()  # type: ignore[index]
    torch.testing.assert_close(norms, torch.full_like(norms, 2.0))


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "gelu", "silu", "elu"])
def test_other_activations_are_left_alone(activation: str) -> None:
    model = build("mlp:4-6-5-3", activation=activation)
    assert close(normalise_scale(model), model, 0.0)


def test_units_without_weights_on_one_side_follow_their_layer() -> None:
    model = network("mlp")
    with torch.no_grad():
        model.fc1.weight[0], model.fc1.bias[0] = 0.0, 0.0  # type: ignore[union-attr,index]
        model.fc2.weight[:, 1] = 0.0  # type: ignore[union-attr,index]
    other = scaled(model, "fc1", "fc2", torch.full((6,), 3.0).double())
    a, b = normalise_scale(model), normalise_scale(other)
    assert close(a, b)
    assert all(bool(p.isfinite().all()) for p in a.parameters())


def test_an_empty_layer_and_single_precision() -> None:
    model = sparsify(build("mlp:4-6-5-3"), density=0.5)
    model.fc1.weight.replace(torch.empty(0, dtype=torch.int64), torch.empty(0))  # type: ignore[union-attr]
    made = normalise_scale(model)
    x = torch.randn(5, 4)
    assert made(x).dtype == torch.float32
    torch.testing.assert_close(made(x), model(x))


def test_bad_input() -> None:
    model = network("mlp")
    with pytest.raises(MismatchError):
        normalise_scale(model, Graph(graphs.trace(network("vgg"), (3, 8, 8)).groups, (7,)))
    with torch.no_grad():
        next(model.parameters())[0, 0] = math.nan
    with pytest.raises(InputError, match="holds NaN or infinite values"):
        normalise_scale(model)
