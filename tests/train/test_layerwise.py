"""Batched products against the networks one by one, and which networks they are not for."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from regraft.train.layerwise import ACTIVATIONS, layerwise


@pytest.mark.parametrize("activation", [*ACTIVATIONS, nn.Identity])
@pytest.mark.parametrize("sizes", [(6, 5, 3), (6, 1, 1), (6, 6, 6), (6, 1, 4)])
@pytest.mark.parametrize("last", [True, False])
def test_equal_to_the_networks_one_by_one(activation: Any, sizes: tuple[int, int, int], last: bool) -> None:
    a, b, c = sizes
    members = [
        nn.Sequential(
            nn.Flatten(), nn.Linear(a, b), activation(), nn.Linear(b, c, bias=False),
            *([activation()] if last else []),
        ).double()
        for _ in range(4)
    ]  # fmt: skip
    stacked = {
        name: torch.stack([dict(m.named_parameters())[name].detach() for m in members]).requires_grad_()
        for name, _ in members[0].named_parameters()
    }
    forward = layerwise(members[0])
    assert forward is not None
    x, g = torch.randn(4, 7, 2, 3, dtype=torch.float64), torch.randn(4, 7, c, dtype=torch.float64)
    expected = torch.stack([m(part) for m, part in zip(members, x, strict=True)])
    found = forward(stacked, x)
    torch.testing.assert_close(found, expected)
    before = g.clone()
    found.backward(g)
    expected.backward(g)
    assert torch.equal(g, before)
    for name, tensor in stacked.items():
        gradients = [dict(m.named_parameters())[name].grad for m in members]
        torch.testing.assert_close(tensor.grad, torch.stack([d for d in gradients if d is not None]))


def test_parameters_that_do_not_train_get_no_gradient() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    stacked = {name: p.detach().unsqueeze(0) for name, p in model.named_parameters()}
    stacked["2.bias"].requires_grad_()
    forward = layerwise(model)
    assert forward is not None
    forward(stacked, torch.ones(1, 4, 2)).sum().backward()
    assert [name for name, p in stacked.items() if p.grad is not None] == ["2.bias"]
    assert stacked["2.bias"].grad is not None
    assert stacked["2.bias"].grad.item() == 4


def test_other_networks_are_left_to_vmap() -> None:
    hooked = nn.Sequential(nn.Linear(2, 2))
    hooked[0].register_forward_hook(lambda *_: None)
    others = (
        nn.Linear(2, 2),
        nn.Sequential(nn.ReLU()),
        nn.Sequential(nn.ReLU(), nn.Linear(2, 2)),
        nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Tanh()),
        nn.Sequential(nn.Linear(2, 2), nn.GELU()),
        nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)),
        nn.Sequential(nn.Linear(2, 2), nn.Softmax(1)),
        nn.Sequential(nn.Flatten(0), nn.Linear(2, 2)),
        nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 2))),
        hooked,
    )
    for model in others:
        assert layerwise(model) is None
