"""What the units say, against hooks and formulas written by hand."""

from __future__ import annotations

import pytest
import torch
from tests.graph.zoo import ZOO, network, permutations, samples
from torch import nn

from regraft.errors import InputError, MismatchError
from regraft.graph import activations, take, trace


def test_an_mlps_units_are_what_the_formula_gives() -> None:
    model, x = network("mlp"), samples("mlp")
    first = torch.relu(x @ model.fc1.weight.T + model.fc1.bias)
    second = torch.relu(first @ model.fc2.weight.T + model.fc2.bias)
    seen = activations(model, trace(model), x)
    assert list(seen) == ["fc1", "fc2"]
    torch.testing.assert_close(seen["fc1"], first)
    torch.testing.assert_close(seen["fc2"], second)


def test_flattened_maps_become_rows_by_position() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).double()
    x = torch.randn(5, 1, 4, 4, dtype=torch.float64)
    maps = torch.relu(model[0](x))
    seen = activations(model, trace(model, (1, 4, 4)), x)["0"]
    torch.testing.assert_close(seen, maps.permute(0, 2, 3, 1).reshape(-1, 3))


@pytest.mark.parametrize("density", [None, 0.4])
@pytest.mark.parametrize("name", ZOO)
def test_permuted_units_say_the_same_in_their_new_places(name: str, density: float | None) -> None:
    model, x = network(name, density=density), samples(name)
    graph = trace(model, ZOO[name][1])
    units = permutations(graph, 3)
    before, after = activations(model, graph, x), activations(take(model, graph, units), graph, x)
    for group in graph.free:
        if group.name in before and all(s.repeat == 1 or s.kind == "read" for s in group.slots):
            torch.testing.assert_close(after[group.name], before[group.name][:, units[group.name]])


def test_dropout_is_off_and_modes_come_back() -> None:
    model = nn.Sequential(nn.Linear(3, 50), nn.Dropout(), nn.Linear(50, 2)).train()
    x = torch.randn(4, 3)
    assert torch.equal(activations(model, trace(model), x)["0"], model[0](x))
    assert model.training


def test_bad_input() -> None:
    model = network("mlp")
    graph = trace(model)
    with pytest.raises(MismatchError, match=r"does not take samples of shape \(5,\)"):
        activations(model, graph, torch.zeros(2, 5, dtype=torch.float64))
    with pytest.raises(InputError, match="activations of 'fc1' are NaN or infinite"):
        activations(model, graph, torch.full((2, 7), torch.nan, dtype=torch.float64))
    with pytest.raises(MismatchError, match="which the model does not have"):
        activations(network("vgg"), graph, torch.zeros(2, 7))
