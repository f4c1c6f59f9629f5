"""The ensemble is the mean of its networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from regraft.errors import InputError
from regraft.graph import concatenate, trace
from regraft.merging import Ensemble


def test_the_mean_of_any_architectures() -> None:
    networks = [nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 3))]
    x = torch.randn(6, 4)
    wanted = sum(n(x) for n in networks) / 2
    assert torch.allclose(Ensemble(networks)(x), wanted)


def test_it_is_what_networks_side_by_side_compute() -> None:
    networks = [nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 3)).double() for _ in range(3)]
    x = torch.randn(6, 4, dtype=torch.float64)
    large, _ = concatenate(networks, trace(networks[0]))
    torch.testing.assert_close(Ensemble(networks)(x), large(x))


def test_it_follows_the_mode_and_holds_the_networks() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
    ensemble = Ensemble([network]).eval()
    assert not network.training
    assert next(ensemble.parameters()) is network[0].weight


@pytest.mark.parametrize("networks", [[], nn.Linear(2, 2)])
def test_it_needs_networks(networks: object) -> None:
    with pytest.raises(InputError, match="a list of at least one network"):
        Ensemble(networks)  # type: ignore[arg-type]
