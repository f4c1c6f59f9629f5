"""Two small networks on a part of digits, trained once."""

from __future__ import annotations

import pytest

from regraft import data
from regraft.data import Data
from regraft.studies.networks import Network, train_network
from regraft.train import Recipe

RECIPE = Recipe(
    "mlp:in-24-classes", density=0.3, activation="sigmoid", epochs=4, batch_size=20, lr=0.3, momentum=0.9
)


@pytest.fixture(scope="session")
def digits() -> Data:
    return data.load("digits", per_class=30, test_per_class=20)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return RECIPE


@pytest.fixture(scope="session")
def networks(digits: Data) -> list[Network]:
    return [train_network(RECIPE, digits, seed) for seed in range(3)]
