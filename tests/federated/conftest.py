"""Small networks, samples, and updates, for all tests here."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.federated.nets import network, samples
from torch import nn

from regraft.data import Split
from regraft.federated import Update


@pytest.fixture
def net() -> Callable[..., nn.Module]:
    return network


@pytest.fixture
def split() -> Callable[..., Split]:
    return samples


@pytest.fixture
def update() -> Callable[..., Update]:
    """``update(seed)``: that network as an update of round 0."""

    def make(seed: int = 0, client: str = "a", examples: int = 10, round: int = 0) -> Update:
        return Update.of(network(seed), round=round, client=client, examples=examples)

    return make


@pytest.fixture
def equal() -> Callable[[nn.Module, nn.Module], bool]:
    """Whether two models hold the same, bit for bit."""

    def compare(a: nn.Module, b: nn.Module) -> bool:
        mine, theirs = a.state_dict(), b.state_dict()
        return mine.keys() == theirs.keys() and all(torch.equal(t, theirs[n]) for n, t in mine.items())

    return compare
