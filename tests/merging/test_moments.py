"""Pooled moments equal those of all numbers at once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.merging.nets import at, mlp, residual
from torch import Tensor, nn

from regraft.errors import InputError, MismatchError
from regraft.merging.moments import Moments, feeding, inputs_of, pooled


@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.sampled_from([0.0, 1e6]))
def test_batches_of_any_size_pool_to_the_moments_of_all(sizes: list[int], offset: float) -> None:
    batches = [torch.randn(n, 3, dtype=torch.float64) + offset for n in sizes]
    moments = Moments.none(3, torch.device("cpu"))
    for batch in batches:
        moments.add(batch)
    whole = torch.cat(batches)
    assert moments.count == len(whole)
    torch.testing.assert_close(moments.mean, whole.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moments.variance(), whole.var(0, correction=0), rtol=1e-8, atol=1e-12)


def test_units_of_linear_and_convolutional_layers_in_the_order_of_calls() -> None:
    model = residual(0)
    batches = [torch.randn(3, 1, 5, 5), torch.randn(2, 1, 5, 5)]
    found = pooled(model, ["head", "plain", "norm1", "stem", "norm0"], batches)
    assert list(found) == ["stem", "norm0", "norm1", "plain", "head"]
    for name, moments in found.items():
        wanted = at(model, name, batches, arriving="norm" in name)
        torch.testing.assert_close(moments.mean, wanted.mean(1), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(moments.variance(), wanted.var(1, correction=0), rtol=1e-8, atol=1e-12)


class Twice(nn.Module):
    """One layer used twice, and one never."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.idle, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(torch.relu(self.layer(torch.relu(self.layer(x)))))
        self.passes += 1
        return y


def test_a_layer_used_twice_counts_twice_and_one_never_used_is_absent() -> None:
    model, batches = Twice(), [torch.randn(5, 4), torch.randn(3, 4)]
    found = pooled(model, ["layer", "idle"], batches)
    assert list(found) == ["layer"]
    assert found["layer"].count == 16
    wanted = at(model, "layer", batches)
    torch.testing.assert_close(found["layer"].mean, wanted.mean(1), rtol=1e-12, atol=1e-12)


def test_a_batch_stops_where_all_has_been_seen() -> None:
    model = Twice()
    pooled(model, ["layer"], [torch.randn(5, 4)] * 4)
    assert model.passes == 1  # the first batch tells how often the layer is called


def test_layers_that_feed_a_batch_normalisation() -> None:
    model = residual(0)
    layers = {n: model.get_submodule(n) for n in ("stem", "conv1", "plain", "head")}
    assert feeding(model, layers, torch.randn(2, 1, 5, 5)) == {"stem", "conv1"}


def test_no_hook_stays_and_modes_come_back() -> None:
    model = mlp(0).train()
    model[0].eval()  # type: ignore[index]
    pooled(model, ["0"], [torch.randn(2, 6)])
    with pytest.raises(MismatchError, match=r"cannot take a batch of shape \(2, 5\)"):
        pooled(model, ["0"], [torch.randn(2, 5)])
    assert [m.training for m in model] == [False, True, True, True, True]  # type: ignore[union-attr]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_pairs_with_labels_are_taken_too() -> None:
    x = torch.randn(2, 6)
    assert inputs_of([(x, torch.zeros(2)), x], "a test")[0] is x
    assert len(inputs_of(iter([x, x]), "a test")) == 2


@pytest.mark.parametrize(
    ("batches", "fault"),
    [
        ([], "a test needs at least one batch"),
        (torch.zeros(2, 6), "takes a list of batches, not one tensor"),
        ([torch.zeros(0, 6)], r"a batch of shape \(0, 6\) is empty"),
        ([torch.full((2, 6), torch.nan)], "holds NaN or infinite samples"),
    ],
)
def test_bad_batches(batches: list[Tensor], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        inputs_of(batches, "a test")


def test_a_network_that_has_diverged() -> None:
    model = mlp(0)
    with torch.no_grad():
        model[2].bias[0] = torch.inf  # type: ignore[index]
    with pytest.raises(InputError, match="the values at '2' become NaN or infinite"):
        pooled(model, ["0", "2"], [torch.randn(2, 6)])
