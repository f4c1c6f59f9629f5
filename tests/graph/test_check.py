"""Checking groups that were stated by hand, or belong to another model."""

from __future__ import annotations

import pytest
from tests.graph.zoo import ZOO, network
from torch import nn

from regraft.errors import InputError, MismatchError
from regraft.graph import Graph, Group, Slot, check, trace

MODEL = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


@pytest.mark.parametrize("name", ZOO)
def test_what_was_traced_passes(name: str) -> None:
    model = network(name, density=0.5)
    graph = trace(model, ZOO[name][1])
    assert check(model, graph) is graph


@pytest.mark.parametrize(
    ("group", "error", "message"),
    [
        (Group("h", 4, (Slot("1.weight", 0, "make"),)), MismatchError, "which the model does not have"),
        (Group("h", 5, (Slot("0.weight", 0, "make"),)), MismatchError, r"has shape \(4, 3\)"),
        (Group("h", 4, (Slot("0.weight", 2, "make"),)), MismatchError, "axis 2"),
        (Group("h", 2, (Slot("0.weight", 0, "make", -1),)), MismatchError, "from entry -1"),
        (Group("h", 0, (Slot("0.weight", 0, "make"),)), InputError, "0 units"),
        (Group("h", 4, ()), InputError, "0 slots"),
        (
            Group("h", 2, (Slot("0.weight", 0, "make"), Slot("0.weight", 0, "make", 1))),
            InputError,
            "overlap on axis 0 of '0.weight'",
        ),
    ],
)
def test_bad_groups(group: Group, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check(MODEL, Graph((group,), (3,)))


def test_two_groups_of_one_name() -> None:
    group = Group("h", 4, (Slot("0.weight", 0, "make"),))
    with pytest.raises(InputError, match="same name"):
        Graph((group, group), (3,))
