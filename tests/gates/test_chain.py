"""Which layer reads what."""

from __future__ import annotations

import pytest
from torch import nn

from regraft import models
from regraft.errors import InputError
from regraft.gates.chain import chain
from regraft.graph import trace


def test_layers_follow_each_other_through_pooling_and_flattening() -> None:
    first, links = chain(trace(models.build("lenet-5")))
    assert first == "conv1"
    assert [(link.reads.name, link.layer, link.makes) for link in links] == [
        ("conv1", "conv2", "conv2"), ("conv2", "fc1", "fc1"), ("fc1", "fc2", "fc2"), ("fc2", "fc3", "fc3"),
    ]  # fmt: skip
    assert [link.hidden for link in links] == [True, True, True, False]


def test_a_depthwise_layer_is_no_link() -> None:
    layers = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(16, 2)
    with pytest.raises(InputError, match="made by 2 tensors"):
        chain(trace(nn.Sequential(*layers), (1, 6, 6)))
