"""Taking units: a permutation changes nothing, a cut unit is gone, sizes follow."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.graph.zoo import ZOO, network, permutations, samples
from torch import Tensor, nn

from regraft import checkpoint, models
from regraft.errors import InputError, MismatchError
from regraft.graph import Graph, Group, Slot, take, trace
from regraft.weight import SparseWeight


@pytest.mark.parametrize("density", [None, 0.4])
@pytest.mark.parametrize("name", ZOO)
def test_a_permuted_network_computes_the_same_function(name: str, density: float | None) -> None:
    model = network(name, density=density)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    graph = trace(model, ZOO[name][1])
    turned = take(model, graph, permutations(graph, 1))
    x = samples(name)
    torch.testing.assert_close(turned(x), model(x), rtol=1e-9, atol=1e-9)
    assert any(not torch.equal(v, before[k]) for k, v in turned.state_dict().items())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    for module in turned.modules():
        if isinstance(module, SparseWeight):
            assert bool((module.index.diff() > 0).all())


@given(st.integers(0, 10_000))
def test_permutations_compose_and_invert(seed: int) -> None:
    model = network("mlp", density=0.5)
    graph = trace(model)
    units = permutations(graph, seed)
    back = take(take(model, graph, units), graph, {n: torch.argsort(p) for n, p in units.items()})
    for name, tensor in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor)


@pytest.mark.parametrize("density", [None, 0.4])
@pytest.mark.parametrize("name", ["mlp", "lenet", "vgg", "resnet-18", "mixed", "wrn"])
def test_cutting_units_that_say_nothing_changes_nothing(name: str, density: float | None) -> None:
    """Units that nobody reads can go: the readers' columns are zero, then they are cut."""
    model = network(name, density=density)
    graph = trace(model, ZOO[name][1])
    kept = {group.name: torch.arange(0, group.units, 2) for group in graph.free}
    tensors = {**dict(model.named_modules()), **dict(model.named_parameters())}
    with torch.no_grad():
        for group in graph.free:
            silent = torch.ones(group.units, dtype=torch.bool)
            silent[kept[group.name]] = False
            for slot in group.of_kind("read", "through"):
                entries = silent.repeat_interleave(slot.repeat).nonzero().squeeze(1) + slot.offset
                weight = tensors[slot.tensor]
                if isinstance(weight, SparseWeight):
                    at = weight.input_units() if slot.axis == 1 else weight.rows()
                    weight.values[torch.isin(at, entries)] = 0.0
                elif isinstance(weight, nn.Parameter):
                    weight.index_fill_(slot.axis, entries, 0.0)
    small = take(model, graph, kept)
    x = samples(name)
    if any(slot.kind == "through" for group in graph.free for slot in group.slots):
        assert small(x).shape == model(x).shape  # a map that a depthwise layer makes still has its bias
    else:
        torch.testing.assert_close(small(x), model(x), rtol=1e-9, atol=1e-9)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())


def test_a_cut_network_equals_one_whose_units_are_zeroed_by_hand() -> None:
    model = network("mlp")
    kept = torch.tensor([4, 0, 2])
    small = take(model, trace(model), {"fc1": kept})
    x = samples("mlp")
    hidden = torch.relu(model.fc1(x)) * torch.tensor([1.0, 0, 1, 0, 1, 0])
    torch.testing.assert_close(small(x), model.fc3(torch.relu(model.fc2(hidden))))
    assert isinstance(small.fc1, nn.Linear)
    assert (small.fc1.out_features, small.fc2.in_features) == (3, 3)  # type: ignore[union-attr]


def test_sizes_follow_where_a_shortcut_pads() -> None:
    model = network("resnet-20")
    graph = trace(model)
    small = take(model, graph, {g.name: torch.arange(g.units // 2) for g in graph.free})
    assert small(samples("resnet-20")).shape == (3, 5)
    assert small.get_submodule("group2_1.shortcut").more == 8
    ends = [group.name for group, _ in graph.along("group2_1.shortcut.more", 0)]
    with pytest.raises(MismatchError, match="as many units of each of its groups"):
        take(model, graph, {ends[0]: torch.arange(3)})


def test_trained_state_dtype_and_flags_stay() -> None:
    model = network("vgg").float()
    model[0].weight.requires_grad_(False)
    graph = trace(model, (3, 8, 8))
    small = take(model, graph, {graph.free[0].name: torch.arange(2)})
    assert not small[0].weight.requires_grad
    assert small[3].weight.requires_grad
    assert {p.dtype for p in small.parameters()} == {torch.float32}


def test_tied_weights_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.c(torch.relu(self.b(torch.relu(self.a(x)))))

    model = Tied().double()
    graph = trace(model)
    turned = take(model, graph, permutations(graph, 3))
    assert turned.a.weight is turned.b.weight
    x = torch.randn(5, 4, dtype=torch.float64)
    torch.testing.assert_close(turned(x), model(x))


def test_the_spec_stays_with_the_sizes(tmp_path) -> None:
    model = models.build("mlp:4-6-3")
    graph = trace(model)
    assert take(model, graph, permutations(graph, 0)).spec == model.spec
    small = take(model, graph, {"fc1": torch.arange(3)})
    assert not hasattr(small, "spec")
    known = models.build("mlp:4-3-3").spec
    small = take(model, graph, {"fc1": torch.arange(3)}, spec=known)
    checkpoint.save(small, tmp_path / "small.safetensors")
    loaded = checkpoint.load(tmp_path / "small.safetensors")
    x = torch.randn(2, 4)
    assert torch.equal(loaded(x), small(x))


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ({"fc3": torch.arange(4)}, "cannot move: they are the network's output"),
        ({"fc9": torch.arange(4)}, "unknown group 'fc9': did you mean"),
        ({"fc1": torch.arange(7)}, "go from 0 to 6, but it has the units 0 to 5"),
        ({"fc1": torch.tensor([-1])}, "go from -1"),
        ({"fc1": torch.tensor([1, 1])}, "one unit twice"),
        ({"fc1": torch.tensor([], dtype=torch.int64)}, "at least one unit number"),
        ({"fc1": torch.tensor([True, False])}, "at least one unit number"),
        ({"fc1": torch.tensor([0.5])}, "at least one unit number"),
    ],
)
def test_bad_units(units: dict[str, Tensor], message: str) -> None:
    model = network("mlp")
    with pytest.raises(InputError, match=message):
        take(model, trace(model), units)


def test_groups_stated_by_hand() -> None:
    class Branch(nn.Module):
        """What fx cannot trace."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.relu(self.a(x)) if x.sum() > 0 else torch.tanh(self.a(x)))

    model = Branch().double()
    with pytest.raises(InputError):
        trace(model)
    slots = (Slot("a.weight", 0, "make"), Slot("a.bias", 0, "bias"), Slot("b.weight", 1, "read"))
    graph = Graph((Group("hidden", 4, slots),), (3,))
    turned = take(copy.deepcopy(model), graph, {"hidden": torch.tensor([2, 0, 3, 1])})
    x = torch.randn(6, 3, dtype=torch.float64)
    torch.testing.assert_close(turned(x), model(x))
