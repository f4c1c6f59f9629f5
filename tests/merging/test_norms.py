"""Re-estimated batch normalisation: in evaluation it normalises the batches exactly."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.merging.nets import at, mlp, residual
from torch import nn
from torch.optim.swa_utils import update_bn

from regraft.errors import InputError
from regraft.merging import reestimate_norms

Equal = Callable[[nn.Module, nn.Module], bool]


@pytest.mark.parametrize("density", [None, 0.5])
def test_each_layer_has_the_statistics_of_what_arrives(density: float | None) -> None:
    batches = [torch.randn(n, 1, 5, 5) for n in (4, 3, 1)]
    new = reestimate_norms(residual(0, density), batches)
    for name in ("norm0", "norm1"):
        arrived = at(new, name, batches, arriving=True)
        norm = new.get_submodule(name)
        torch.testing.assert_close(norm.running_mean.double(), arrived.mean(1), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(norm.running_var.double(), arrived.var(1), rtol=1e-5, atol=1e-6)
        assert norm.num_batches_tracked == 3


def test_with_one_batch_and_one_layer_it_is_what_torch_computes() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))
    x = torch.randn(20, 6)
    new = reestimate_norms(model, [x])
    update_bn([x], model)
    for mine, theirs in zip(new.buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_again_changes_nothing(equal: Equal) -> None:
    batches = [torch.randn(4, 1, 5, 5), torch.randn(4, 1, 5, 5)]
    once = reestimate_norms(residual(0), batches)
    assert equal(reestimate_norms(once, batches), once)


def test_the_model_is_left_as_it_was(equal: Equal) -> None:
    model, before = residual(0).train(), residual(0)
    model.norm1.eval()  # type: ignore[union-attr, operator]
    new = reestimate_norms(model, [(torch.randn(4, 1, 5, 5), torch.zeros(4))])
    assert equal(model, before)
    assert not equal(new, before)
    assert [m.training for m in model.modules()] == [m.training for m in new.modules()]
    assert not model.norm1.training  # type: ignore[union-attr]


def test_refuses() -> None:
    x = torch.randn(4, 6)
    with pytest.raises(InputError, match="has no batch normalisation with running statistics"):
        reestimate_norms(mlp(0), [x])
    with pytest.raises(InputError, match="has no batch normalisation"):
        reestimate_norms(nn.Sequential(nn.BatchNorm1d(6, track_running_stats=False)), [x])
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5))
    with pytest.raises(InputError, match="'1' sees one number for each unit"):
        reestimate_norms(model, [x[:1]])
    with pytest.raises(InputError, match="re-estimating batch normalisation needs at least one batch"):
        reestimate_norms(model, [])
    with pytest.raises(InputError, match="NaN or infinite samples"):
        reestimate_norms(model, [x * torch.nan])
