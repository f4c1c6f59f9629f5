"""Tracing: which units belong together, and what cannot be followed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.graph.zoo import ZOO, network
from torch import Tensor, nn

from regraft.errors import InputError, MismatchError
from regraft.graph import Graph, Slot, trace


def units(graph: Graph) -> dict[str, int]:
    return {group.name: group.units for group in graph}


def places(graph: Graph, group: str, kind: str) -> list[str]:
    return [slot.tensor for slot in graph[group].slots if slot.kind == kind]


def test_an_mlp_has_a_group_per_hidden_layer_and_fixed_outputs() -> None:
    graph = trace(network("mlp"))
    assert units(graph) == {"fc1": 6, "fc2": 5, "fc3": 4}
    assert [group.name for group in graph.free] == ["fc1", "fc2"]
    assert graph["fc1"].slots == (
        Slot("fc1.weight", 0, "make"), Slot("fc1.bias", 0, "bias"), Slot("fc2.weight", 1, "read"),
    )  # fmt: skip
    assert graph["fc1"].operations == ("relu",)
    assert graph["fc3"].fixed == "they are the network's output"


@pytest.mark.parametrize("name", ZOO)
def test_sparse_networks_have_the_groups_of_dense_ones(name: str) -> None:
    shape = ZOO[name][1]
    assert trace(network(name), shape) == trace(network(name, density=0.5), shape)


def test_flattened_maps_repeat() -> None:
    graph = trace(network("lenet"))
    assert [s for s in graph["conv2"].slots if s.kind == "read"] == [Slot("fc1.weight", 1, "read", 0, 25)]


def test_a_residual_stream_is_one_group() -> None:
    graph = trace(network("resnet-18"), (3, 8, 8))
    assert units(graph) == {
        "0": 4, "3.conv1": 4, "4.conv1": 8, "4.conv2": 8, "5.conv1": 8, "8": 5,
    }  # fmt: skip
    assert places(graph, "0", "make") == ["0.weight", "3.conv2.weight"]
    assert set(places(graph, "4.conv2", "make")) == {
        "4.conv2.weight", "4.downsample.0.weight", "5.conv2.weight",
    }  # fmt: skip
    assert places(graph, "4.conv2", "read") == ["5.conv1.weight", "8.weight"]


def test_a_shortcut_that_pads_ties_the_middle_of_the_wider_stream_to_the_narrow_one() -> None:
    graph = trace(network("resnet-20"))
    middle = [s for s in graph["conv"].slots if s.tensor == "group2_1.conv2.weight"]
    assert middle == [Slot("group2_1.conv2.weight", 0, "make", 8)]
    assert graph["group2_1.conv2"].units == graph["group2_1.conv2#2"].units == 8
    ends = [(group.units, slot.offset) for group, slot in graph.along("group2_1.shortcut.more", 0)]
    assert ends == [(8, 0), (8, 8)]


def test_groups_of_maps_are_units() -> None:
    graph = trace(network("mixed"), (3, 6, 6))
    # maps in pairs go into each of six groups, which make four maps each: the eight and the four that are
    # concatenated are 4 + 2 units, and the slices in halves part them into 3 + 1 + 2
    assert units(graph) == {"first": 3, "first#2": 1, "second": 2, "out": 5}
    assert Slot("first.weight", 0, "make", 6, 2) in graph["first#2"].slots
    assert Slot("grouped.weight", 0, "through", 12, 4) in graph["first#2"].slots


class _Straddled(nn.Module):
    """Maps in fives, of which the second five belong to two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 8, 1), nn.Conv2d(1, 2, 1), nn.Conv2d(10, 4, 1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.cat([self.a(x), self.b(x)], 1))


def test_layer_normalisation_mixes_its_units() -> None:
    graph = trace(network("tokens"), (4, 6))
    assert graph["embed"].mixed_by == ("norm",)
    assert graph["embed"].operations == ("add", "mean")
    assert graph["up"].mixed_by == ()
    assert places(graph, "embed", "norm") == ["norm.weight", "norm.bias"]


def test_a_shared_layer_makes_one_group() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(torch.relu(self.b(torch.relu(self.a(x))))))

    graph = trace(Twice())
    # what goes into b the second time is what came out of it the first time
    assert units(graph) == {"a": 4, "c": 2}
    assert places(graph, "a", "make") == ["a.weight", "b.weight"]


def test_units_added_to_the_input_cannot_move() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(x + self.b(torch.relu(self.a(x))))

    graph = trace(Skip())
    assert [group.name for group in graph.free] == ["a"]
    assert "input" in str(graph["b"].fixed)


def test_the_input_keeps_its_place_in_a_concatenation() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(7, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.cat([x, torch.relu(self.a(x))], dim=1))

    graph = trace(Wide())
    assert [s for s in graph["a"].slots if s.kind == "read"] == [Slot("b.weight", 1, "read", 3)]
    assert [group.name for group in graph.free] == ["a"]


def test_a_bare_layer_has_its_own_names() -> None:
    (group,) = trace(nn.Linear(3, 2)).groups
    assert [slot.tensor for slot in group.slots] == ["weight", "bias"]


def test_the_model_is_left_as_it_was() -> None:
    model = network("resnet-20").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    trace(model)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


class _Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class _Call(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(4, 4), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer(x))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (_Branch(), (3,), "depends on the values of its input"),
        (nn.Sequential(nn.Conv2d(1, 1, 1)), None, "input shape of the Sequential is not known"),
        (_Call(torch.fft.rfft), (4,), "through 'fft_rfft': nothing is known about this function"),
        (_Call(lambda x: x.sum(1)), (4,), "it reduces over the units themselves"),
        (_Call(lambda x: x[:, [0, 2, 1, 3]]), (4,), "it takes other than a row of units"),
        (_Call(lambda x: x.view(-1, 2, 2)), (4,), "into"),
        (_Call(lambda x: F.pad(x, (1, 1), value=2.0)), (4,), "other than zeros"),
        (_Call(lambda x: (x, x)), (4,), "must give one tensor"),
        (nn.Sequential(nn.Linear(4, 4), nn.Bilinear(4, 4, 2)), (4,), "not take samples|nothing is known"),
        (_Straddled(), (1, 2, 2), "takes 5 entries of 'c' apart"),
        (nn.Sequential(nn.Linear(4, 4), nn.RNN(4, 4)), (4,), "nothing is known about a RNN|one tensor"),
        (nn.Sequential(nn.Conv2d(1, 4, 1), nn.GroupNorm(2, 4, affine=False)), (1, 2, 2), "GroupNorm without"),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_ends_in_a_sentence(
    model: nn.Module, shape: tuple[int, ...] | None, message: str
) -> None:
    with pytest.raises((InputError, MismatchError), match=message) as caught:
        trace(model, shape)
    if "cannot follow" in str(caught.value):
        assert "by hand" in str(caught.value)


def test_samples_of_another_shape() -> None:
    with pytest.raises(MismatchError, match=r"does not take samples of shape \(5,\)"):
        trace(nn.Sequential(nn.Linear(4, 3)), (5,))
