"""Magnitude weighted by the importance of the input, against a loop over connections."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from regraft import SparseLinear, SparseWeight, resparsify, sparsify
from regraft.errors import InputError
from regraft.scores import Connectivity, magnitude, weights_of

SMALL = st.lists(st.tuples(st.booleans(), st.floats(-3, 3, width=32)), min_size=20, max_size=20)


def layer(entries: list[tuple[bool, float]]) -> SparseLinear:
    """4 by 5, with the entries that are there."""
    index = torch.tensor([i for i, (there, _) in enumerate(entries) if there], dtype=torch.int64)
    values = torch.tensor([v for there, v in entries if there], dtype=torch.float64)
    return SparseLinear(SparseWeight((4, 5), index, values), None)


def by_hand(dense: Tensor, there: Tensor, importance: str, power: float) -> Tensor:
    counted = dense.abs() if importance == "strength" else torch.ones_like(dense)
    each = (counted * there).sum(0)
    mean = each[each > 0].mean()
    share = torch.where(each > 0, each / mean, 0.0)
    return dense.abs() * share**power


@given(SMALL, st.sampled_from(["degree", "strength"]), st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_equals_the_formula_on_the_dense_weight(
    entries: list[tuple[bool, float]], importance: str, power: float
) -> None:
    model = layer(entries)
    there = torch.zeros(20, dtype=torch.float64)
    there[model.weight.index] = 1
    wanted = by_hand(model.weight.dense().detach(), there.view(4, 5), importance, power)
    found = Connectivity(importance, power)(model)["weight"]
    torch.testing.assert_close(found, wanted.flatten()[model.weight.index], rtol=1e-12, atol=1e-12)


def test_is_the_magnitude_where_all_inputs_are_equally_important() -> None:
    model = sparsify(nn.Sequential(nn.Linear(6, 4), nn.Conv2d(2, 3, 3)), density=1.0)
    for score in (Connectivity(), Connectivity("strength", 0.0)):
        for name, vector in score(model).items():
            assert torch.equal(vector, magnitude(model)[name].double())


def test_a_smaller_weight_at_an_important_input_outlasts_a_larger_one() -> None:
    """Input 0 has three connections, input 1 has one."""
    weight = SparseWeight((3, 2), torch.tensor([0, 1, 2, 4]), torch.tensor([0.9, 1.0, 1.0, 1.0]))
    model = nn.Sequential(SparseLinear(weight, None))
    resparsify(model, counts={"0.weight": 3}, score=Connectivity())
    assert weight.index.tolist() == [0, 2, 4]


def test_channels_of_a_grouped_convolution_are_told_apart() -> None:
    model = sparsify(nn.Sequential(nn.Conv2d(4, 4, 1, groups=2, bias=False)), density=1.0)
    weight = weights_of(model)["0.weight"]
    # of the 4 x 2 positions: both units of the first group read channel 0, one of the second reads channel 3
    weight.replace(torch.tensor([0, 2, 7]), torch.tensor([1.0, 1.0, 1.0]))
    assert Connectivity()(model)["0.weight"].tolist() == pytest.approx([4 / 3, 4 / 3, 2 / 3])


def test_a_weight_without_connections_or_without_a_layer() -> None:
    empty = SparseWeight((2, 3), torch.empty(0, dtype=torch.int64), torch.empty(0))
    assert Connectivity()(empty)[""].numel() == 0
    alone = SparseWeight((2, 3), torch.tensor([0, 3, 4]), torch.tensor([1.0, 2.0, -3.0]))
    assert Connectivity()(alone)[""].tolist() == pytest.approx([4 / 3, 8 / 3, 2.0])


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"importance": "degre"}, "unknown importance 'degre': did you mean 'degree'"),
        ({"power": -1.0}, r"power is -1.0, but must be 0 or more"),
        ({"power": float("nan")}, "power is nan"),
    ],
)
def test_bad_options(options: dict[str, object], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        Connectivity(**options)  # type: ignore[arg-type]
