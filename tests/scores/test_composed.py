"""Stacked Scoring, and the inverted control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tests.scores.networks import made
from torch import Tensor, nn

from regraft import SparseLinear, SparseWeight
from regraft.errors import InputError
from regraft.scores import Inverted, Stacked, grasp, magnitude, snip, synflow, weights_of
from regraft.select import Globally


def row(*values: float) -> nn.Module:
    weight = SparseWeight((1, len(values)), torch.arange(len(values)), torch.tensor(values).double())
    return SparseLinear(weight, None)


def _standing(model: nn.Module, values: Mapping[str, Tensor] | None) -> Tensor:
    return weights_of(model)["weight"].values.detach() if values is None else values["weight"]


def plus_one(
    model: nn.Module, probe: Any = None, *, values: Any = None, active: Any = None
) -> dict[str, Tensor]:
    return {"weight": _standing(model, values) + 1}


def squared(
    model: nn.Module, probe: Any = None, *, values: Any = None, active: Any = None
) -> dict[str, Tensor]:
    return {"weight": _standing(model, values).square()}


MODEL = row(1.0, -4.0, 2.0)


@pytest.mark.parametrize(
    ("score", "wanted"),
    [
        (Stacked(plus_one, squared, scale="none"), [4.0, 9.0, 9.0]),  # (w + 1)^2
        (Stacked(squared, plus_one, scale="none"), [2.0, 17.0, 5.0]),  # w^2 + 1
        (Stacked(plus_one, plus_one, squared, scale="none"), [9.0, 4.0, 16.0]),  # (w + 2)^2
        (Stacked(Stacked(plus_one, plus_one, scale="none"), squared, scale="none"), [9.0, 4.0, 16.0]),
        (Stacked(plus_one, squared), [4 / 64, 9 / 64, 9 / 64]),  # |2| + |-3| + |3| = 8
        (Stacked(squared, plus_one, signed=True, scale="none"), [2.0, -15.0, 5.0]),  # sign(w) w^2 + 1
        (
            Stacked(plus_one, squared, scale="weights"),
            [4 * 49 / 64, 9 * 49 / 64, 9 * 49 / 64],
        ),  # 1 + 4 + 2 = 7
        (Inverted(squared), [-1.0, -16.0, -4.0]),
    ],
)
def test_literal_examples(score: Stacked, wanted: list[float]) -> None:
    assert score(MODEL)["weight"].tolist() == wanted


def test_active_reaches_every_score_of_the_stack() -> None:
    seen = []

    def spy(model: nn.Module, probe: Any = None, *, values: Any = None, active: Any = None) -> Any:
        seen.append((values, active))
        return {"weight": torch.ones(3).double()}

    active = {"weight": torch.tensor([True, False, True])}
    Stacked(spy, spy, spy)(MODEL, active=active)
    assert [a for _, a in seen] == [active] * 3
    assert [None if v is None else v["weight"].tolist() for v, _ in seen] == [None, [1 / 3] * 3, [1 / 3] * 3]


@pytest.mark.parametrize("model_name", ["mlp", "lenet-5", "residual"])
def test_synflow_on_magnitudes_is_synflow(model_name: str) -> None:
    """SynFlow takes magnitudes itself, and scaling all layers alike changes no order: one method."""
    model, probe = made(model_name, dtype=torch.float64)
    sizes = {n: w.size for n, w in weights_of(model).items()}
    plain = Globally(0.1)(synflow(model, probe), sizes)
    scale = "none" if model_name == "residual" else "one"  # the stream does not scale with the branch
    for score in (
        Stacked(magnitude, synflow, scale=scale),
        Stacked(synflow, magnitude),
        Stacked(magnitude, synflow, scale="weights", signed=True),
    ):
        found = Globally(0.1)(score(model, probe), sizes)
        assert all(torch.equal(found[n], plain[n]) for n in plain)


def test_a_stack_is_the_second_score_of_a_network_with_the_first_as_weights() -> None:
    model, probe = made("mlp", dtype=torch.float64)
    other, _ = made("mlp", dtype=torch.float64)
    with torch.no_grad():
        for name, weight in weights_of(other).items():
            weight.values.copy_(snip(model, probe)[name])
    found, wanted = Stacked(snip, grasp, scale="none")(model, probe), grasp(other, probe)
    assert all(torch.equal(found[n], wanted[n]) for n in wanted)


def test_errors() -> None:
    with pytest.raises(InputError, match="Stacked got 1 scores, but needs two or more"):
        Stacked(magnitude)
    with pytest.raises(InputError, match="unknown scale of Stacked 'weight': did you mean 'weights'"):
        Stacked(magnitude, magnitude, scale="weight")
    with pytest.raises(InputError, match="each a function"):
        Stacked(magnitude, "snip")  # type: ignore[arg-type]

    def broken(model: nn.Module, probe: Any = None, *, values: Any = None, active: Any = None) -> Any:
        return {"weight": torch.tensor([1.0, torch.nan, 1.0])}

    with pytest.raises(InputError, match="1 of 3 scores of 'weight' are NaN"):
        Stacked(broken, magnitude)(MODEL)


def test_all_zero_scores_stand_in_as_zeros() -> None:
    assert Stacked(magnitude, plus_one)(row(0.0, 0.0))["weight"].tolist() == [1.0, 1.0]
