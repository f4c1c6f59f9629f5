"""Effective connections against reachability in graphs and against what changes the output."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from regraft import Topology, models, prune, sparsify
from regraft.diagnose import connectivity
from regraft.diagnose.paths import input_shape_of
from regraft.errors import InputError, MismatchError
from regraft.layers import SparseLayer


def mlp(sizes: list[int], masks: list[torch.Tensor]) -> nn.Sequential:
    """An MLP with the connections of boolean masks [out, in]."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.Tanh()]
    topology = {
        f"{2 * i}.weight": (tuple(m.shape), m.flatten().nonzero().squeeze(1)) for i, m in enumerate(masks)
    }
    return sparsify(nn.Sequential(*layers[:-1]), topology=Topology(topology))


@given(st.lists(st.integers(1, 5), min_size=2, max_size=5), st.integers(0, 10**6), st.floats(0.1, 0.9))
def test_mlps_against_reachability(sizes: list[int], seed: int, density: float) -> None:
    g = torch.Generator().manual_seed(seed)
    masks = [torch.rand(b, a, generator=g) < density for a, b in itertools.pairwise(sizes)]
    found = connectivity(mlp(sizes, masks))
    forward = [set(range(sizes[0]))]
    for m in masks:
        forward.append({o for o in range(m.shape[0]) if any(m[o, i] for i in forward[-1])})
    backward = [set(range(sizes[-1]))]
    for m in reversed(masks):
        backward.append({i for i in range(m.shape[1]) if any(m[o, i] for o in backward[-1])})
    backward.reverse()
    for layer, (name, m) in enumerate(zip(found.topology, masks, strict=True)):
        n_in = m.shape[1]
        expected = [
            o * n_in + i
            for o, i in itertools.product(range(m.shape[0]), range(n_in))
            if m[o, i] and i in forward[layer] and o in backward[layer + 1]
        ]
        assert found.topology[name].index.tolist() == expected
        assert found.layers[layer].kept == int(m.sum())
    assert set(found.unreachable) == set(range(sizes[-1])) - forward[-1]
    assert found.outputs == sizes[-1]


class Branched(nn.Module):
    """Convolutions, grouped and strided, both pools, a normalisation, and a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(2)
        self.grouped = nn.Conv2d(4, 4, 2, groups=2, padding=1, stride=2)
        self.skip = nn.Conv2d(4, 4, 1, stride=2, bias=False)
        self.best = nn.AdaptiveMaxPool2d(2)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.norm(self.first(x))))
        y = torch.relu(self.grouped(x))[:, :, :2, :2] + self.skip(x)
        return self.head(self.best(y).flatten(1))


@pytest.mark.parametrize("seed", range(4))
def test_any_network_against_what_changes_its_output(seed: int) -> None:
    """A connection is effective where doubling it changes an output, all being positive, for some input."""
    g = torch.Generator().manual_seed(seed)
    model = sparsify(Branched(), density=0.12, allocate="uniform", generator=g).double().eval()
    found = connectivity(model, (2, 8, 8))
    positive = copy.deepcopy(model)
    with torch.no_grad():
        for module in positive.modules():
            if isinstance(module, SparseLayer):
                module.weight.values.uniform_(0.5, 1.5, generator=g)
                if module.bias is not None:
                    module.bias.zero_()
        x = torch.rand(400, 2, 8, 8, generator=g, dtype=torch.float64) ** 8  # any pixel may be the largest
        before = positive(x)
        for name, kept in found.topology.items():
            weight = positive.get_submodule(name)
            changes = []
            for entry, position in enumerate(weight.index.tolist()):
                weight.values[entry] *= 2
                if not torch.equal(positive(x), before):
                    changes.append(position)
                weight.values[entry] /= 2
            assert kept.index.tolist() == changes
        assert set(found.unreachable) == {i for i in range(3) if not before[:, i].any()}
    assert found.topology.nnz < found.kept  # some are not effective, or the test shows nothing


@pytest.mark.parametrize("name", ["lenet-300-100", "lenet-5", "resnet-8", "wrn-10-1"])
def test_a_full_network_is_all_effective(name: str) -> None:
    model = models.build(name, generator=torch.Generator().manual_seed(0))
    state = copy.deepcopy(model.state_dict())
    found = connectivity(model)
    assert found.effective_density == found.density == 1.0
    assert found.unreachable == found.faults() == ()
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(state.values(), model.state_dict().values(), strict=True))


def test_values_do_not_matter_and_depth_does_not_underflow() -> None:
    sizes = [3] * 200
    deep = mlp(sizes, [torch.eye(3, dtype=torch.bool)] * 199)
    with torch.no_grad():
        for layer in deep:
            if isinstance(layer, SparseLayer):
                layer.weight.values.mul_(1e-20)
        deep[0].weight.values.zero_()
    found = connectivity(deep)
    assert found.topology == Topology.of(deep)
    wide = sparsify(nn.Sequential(*(nn.Linear(300, 300) for _ in range(150))), density=1.0)
    assert connectivity(wide).effective_density == 1.0


def test_a_layer_that_died() -> None:
    model = models.build("mlp:6-5-4-3")
    topology = Topology({
        "fc1.weight": ((5, 6), torch.tensor([0])),
        "fc2.weight": ((4, 5), torch.tensor([], dtype=torch.int64)),
        "fc3.weight": ((3, 4), torch.tensor([0, 5])),
    })  # fmt: skip
    found = connectivity(prune.apply(model, topology))
    assert found.empty == ("fc2.weight",)
    assert found.cut == ("fc1.weight", "fc3.weight")
    assert found.unreachable == (0, 1, 2)
    assert found.effective_density == 0.0
    empty, cut, unreachable = found.faults()
    assert empty.startswith("no connection is left in 'fc2.weight'; keep some connections in each layer")
    assert "'fc1.weight', 'fc3.weight' lies on a path" in cut
    assert "no input reaches 3 of 3 outputs (0, 1, 2)" in unreachable
    plain = found.plain()
    assert plain["layers"][2]["kept"] == 2
    assert plain["layers"][2]["effective"] == 0
    assert plain["empty_layers"] == ["fc2.weight"]


def test_all_layers_may_be_empty() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    model = sparsify(nn.Sequential(nn.Linear(3, 2)), topology=Topology({"0.weight": ((2, 3), nothing)}))
    assert connectivity(model).unreachable == (0, 1)


def test_a_bias_is_no_path() -> None:
    model = mlp([2, 2, 1], [torch.zeros(2, 2, dtype=torch.bool), torch.ones(1, 2, dtype=torch.bool)])
    assert connectivity(model).unreachable == (0,)


def test_the_input_shape() -> None:
    assert input_shape_of(models.build("resnet-8", input_shape=(1, 9, 9))) == (1, 9, 9)
    assert input_shape_of(models.build("mlp:7-3")) == (7,)
    assert input_shape_of(sparsify(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), density=1.0)) == (4,)
    with pytest.raises(InputError, match="shape of a sample is not known for this Branched"):
        connectivity(Branched())
    with pytest.raises(MismatchError, match="cannot take a batch of shape"):
        connectivity(Branched(), (3, 8, 8))


def test_refusals() -> None:
    with pytest.raises(InputError, match="can be made sparse"):
        connectivity(nn.Sequential(nn.ReLU()), (3,))
    dilated = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2, dilation=2))
    with pytest.raises(InputError, match="dilated"):
        connectivity(dilated, (1, 9, 9))
