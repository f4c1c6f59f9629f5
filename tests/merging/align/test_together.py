"""Orders of many networks: whatever matches two, the first network keeps its own numbering."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from tests.graph.zoo import network
from torch import Tensor

from regraft.errors import InputError
from regraft.merging.align.entries import Order
from regraft.merging.align.together import checked, orders_of
from regraft.probe import Probe

START = {"a": torch.arange(5)}


def test_to_the_first_each_is_matched_once() -> None:
    asked = []

    def match(number: int, others: Sequence[int], orders: Sequence[Order]) -> dict[str, Tensor]:
        asked.append((number, list(others)))
        return {"a": torch.arange(5).roll(number)}

    found = orders_of(3, START, match, "first", 9, torch.Generator())
    assert asked == [(1, [0]), (2, [0])]
    assert [o["a"].tolist() for o in found] == [[0, 1, 2, 3, 4], [4, 0, 1, 2, 3], [3, 4, 0, 1, 2]]


def test_to_the_mean_rounds_end_when_none_moves() -> None:
    """Networks that are numbered at random agree in the end, with the first one's numbers."""
    truth = [torch.randperm(5, generator=torch.Generator().manual_seed(s)) for s in range(4)]
    asked = []

    def match(number: int, others: Sequence[int], orders: Sequence[Order]) -> dict[str, Tensor]:
        asked.append(number)
        reference = truth[others[0]][orders[others[0]]["a"]]
        return {"a": torch.argsort(truth[number])[reference]}

    found = orders_of(4, START, match, "mean", 9, torch.Generator().manual_seed(0))
    assert torch.equal(found[0]["a"], torch.arange(5))
    assert all(torch.equal(truth[n][found[n]["a"]], truth[0]) for n in range(4))
    assert sorted(asked[3:]) == [0, 1, 2, 3]


def test_the_first_network_keeps_its_numbers_even_where_it_was_moved() -> None:
    def match(number: int, others: Sequence[int], orders: Sequence[Order]) -> dict[str, Tensor]:
        return {"a": orders[number]["a"].roll(1)} if len(others) > 1 else dict(orders[number])

    found = orders_of(3, START, match, "mean", 2, torch.Generator().manual_seed(0))
    assert all(torch.equal(o["a"], torch.arange(5)) for o in found)


def test_the_shape_of_a_sample_can_come_from_the_probe() -> None:
    models = [network("vgg", seed=s) for s in range(2)]
    with pytest.raises(InputError, match="input shape of the Sequential is not known"):
        checked(models, None, None)
    for probe in (Probe(input_shape=(3, 8, 8)), Probe(batches=[(torch.zeros(2, 3, 8, 8), torch.zeros(2))])):
        assert checked(models, None, probe).input_shape == (3, 8, 8)
