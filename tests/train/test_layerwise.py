"""Batched products against the networks one by one, and which networks they are not for."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from regraft.train.layerwise import POINTWISE, layerwise


@pytest.mark.parametrize("pointwise", POINTWISE)
@pytest.mark.parametrize("sizes", [(6, 5, 3), (6, 1, 1), (6, 6, 6)])
def test_equal_to_the_networks_one_by_one(pointwise: Any, sizes: tuple[int, int, int]) -> None:
    a, b, c = sizes
    members = [
        nn.Sequential(nn.Flatten(), nn.Linear(a, b), pointwise(), nn.Linear(b, c, bias=False)).double().eval()
        for _ in range(4)
    ]
    stacked = {
        name: torch.stack([dict(m.named_parameters())[name] for m in members])
        for name, _ in members[0].named_parameters()
    }
    forward = layerwise(members[0])
    assert forward is not None
    x = torch.randn(4, 7, 2, 3, dtype=torch.float64)
    expected = torch.stack([m(part) for m, part in zip(members, x, strict=True)])
    torch.testing.assert_close(forward(stacked, x), expected)


def test_other_networks_are_left_to_vmap() -> None:
    hooked = nn.Sequential(nn.Linear(2, 2))
    hooked[0].register_forward_hook(lambda *_: None)
    others = (
        nn.Linear(2, 2),
        nn.Sequential(nn.ReLU()),
        nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)),
        nn.Sequential(nn.Linear(2, 2), nn.Softmax(1)),
        nn.Sequential(nn.Flatten(0), nn.Linear(2, 2)),
        nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 2))),
        hooked,
    )
    for model in others:
        assert layerwise(model) is None
