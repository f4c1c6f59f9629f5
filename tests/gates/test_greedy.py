"""The greedy strategy: what each stage keeps, what it can mimic exactly, what it refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regraft import models
from regraft.errors import InputError
from regraft.gates import GreedyStudent, merge_greedily
from regraft.gates.chain import chain, reader_alone, seen
from regraft.graph import concatenate, take, trace

MakeNet = Callable[..., nn.Module]
Batches = list[tuple[Tensor, Tensor]]

QUICK: dict[str, Any] = {"identify_epochs": 5, "mimic_epochs": 2, "finetune_epochs": 1, "lr": 0.05}


def quick(networks: list[nn.Module], batches: Any, **options: Any) -> GreedyStudent:
    return merge_greedily(networks, batches, **{**QUICK, **options})


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return list(left) == list(right) and all(torch.equal(left[n], right[n]) for n in left)


@pytest.mark.parametrize("count", [2, 3])
def test_layers_are_gone_through_backward_then_forward(net: MakeNet, batches: Batches, count: int) -> None:
    parents = [net(seed) for seed in range(count)]
    before = copy.deepcopy(parents)
    student = quick(
        parents, batches, evaluate=lambda model: {"weights": float(len(list(model.parameters())))}
    )
    assert all(same(a, b) for a, b in zip(parents, before, strict=True))
    assert list(student.identification) == ["fc2", "fc1"]
    assert [group.name for group in student.groups] == ["fc2", "fc1"]
    assert list(student.mimicry) == ["fc1", "fc2", "fc3"]
    assert {name: len(units) for name, units in student.units.items()} == {"fc2": 8, "fc1": 10}
    assert student.model.spec == parents[0].spec
    assert list(student.evaluation) == ["concatenated", "taken", "mimicked", "student"]


def test_the_same_seed_gives_the_same_student(net: MakeNet, batches: Batches) -> None:
    parents = [net(seed) for seed in range(2)]
    state = torch.get_rng_state()
    first = quick(parents, batches, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(first.model, quick(parents, batches, seed=3).model)
    assert not same(first.model, quick(parents, batches, seed=4).model)


def test_the_first_layer_of_the_teachers_needs_no_mimicry(net: MakeNet, batches: Batches) -> None:
    """From the teachers' weights the first layer's targets are its own outputs: nothing is left to learn."""
    student = quick([net(0), net(1)], batches, start="teachers", finetune_epochs=0)
    assert student.mimicry["fc1"].final["train_loss"] == pytest.approx(0.0, abs=1e-10)
    assert student.mimicry["fc2"].final["train_loss"] > 1e-4


def test_mimicry_comes_nearer_to_the_targets(net: MakeNet, batches: Batches) -> None:
    student = quick([net(0), net(1)], batches, mimic_epochs=20)
    for name in ("fc1", "fc2"):
        losses = student.mimicry[name].column("train_loss")
        assert losses[-1] < 0.6 * losses[0]


def test_sparse_teachers_keep_their_topology(net: MakeNet, batches: Batches) -> None:
    parents = [net(seed, 0.4) for seed in range(2)]
    assert quick(parents, batches, start="teachers").model.fc1.weight.nnz > 0
    with pytest.raises(InputError, match=r"'fc1' is a SparseLinear: take start='teachers'"):
        quick(parents, batches)


def test_a_layer_alone_computes_what_it_does_in_the_network(net: MakeNet, batches: Batches) -> None:
    model = net(0).train()
    groups = trace(model)
    _, links = chain(groups)
    targets = torch.tensor([1, 5])
    alone, alone_graph = reader_alone(model, groups, links[0], targets)
    assert [group.name for group in alone_graph] == ["fc1"]
    for (x, output, y), (_, expected) in zip(seen(model, "fc2", batches), batches, strict=True):
        assert torch.allclose(alone(x), output[:, targets], atol=1e-6)
        assert y is expected
    assert model.training


def test_what_convolutions_hand_to_flat_layers_is_followed() -> None:
    parents = [models.build("lenet-5", activation="tanh") for _ in range(2)]
    x = torch.randn(8, 1, 28, 28)
    student = quick(parents, [(x, torch.arange(8))], identify_epochs=1)
    assert {name: len(units) for name, units in student.units.items()} == {
        "fc2": 84, "fc1": 120, "conv2": 16, "conv1": 6,
    }  # fmt: skip
    big, groups = concatenate(parents, trace(parents[0]))
    assert take(big, groups, student.units).conv1.out_channels == student.model.conv1.out_channels


def test_networks_that_are_no_chain_are_refused(batches: Batches) -> None:
    x = torch.randn(2, 3, 32, 32)
    with pytest.raises(InputError, match=r"from layer to layer, but the units of 'conv'"):
        merge_greedily([models.build("resnet-20") for _ in range(2)], [(x, torch.zeros(2).long())])
    with pytest.raises(InputError, match="needs a network with hidden units"):
        merge_greedily([nn.Sequential(nn.Linear(6, 4)) for _ in range(2)], batches)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"identify_epochs": 0}, "epochs is 0"),
        ({"start": "new"}, "start is 'new'"),
        ({"lambda_start": -1.0}, "lambda_start is -1.0"),
    ],
)
def test_values_out_of_range_are_refused(
    net: MakeNet, batches: Batches, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        quick([net(0), net(1)], batches, **options)
