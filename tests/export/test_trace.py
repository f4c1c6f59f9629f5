"""What a model becomes before it is written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import regraft
from regraft import models
from regraft.errors import InputError, MismatchError
from regraft.export import trace
from regraft.export.pack import layout_of

Case = Callable[[str], tuple[nn.Module, torch.Tensor]]
Sparse = Callable[..., nn.Module]


def test_batch_normalisation_is_folded_where_only_it_looks(sparse: Sparse, residual: nn.Module) -> None:
    program = trace(residual, (3, 8, 8))
    scales = [step.where for step in program.steps if step.op == "scale"]
    assert scales == ["norm3"]  # it follows an addition


def test_folding_keeps_the_connections(sparse: Sparse) -> None:
    model = sparse(nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30)), density=0.1)
    (step,) = trace(model).steps
    assert step.weight is not None
    assert torch.equal(torch.from_numpy(step.weight.index), model[0].weight.index)


def test_modes_and_gradients_are_left_alone(case: Case) -> None:
    model, _ = case("mlp")
    model.train()
    model[3].eval()
    trace(model)
    assert model.training
    assert not model[3].training


def test_traversal_follows_what_comes_before(case: Case) -> None:
    program = trace(case("mlp")[0])
    linear = [step for step in program.steps if step.op == "linear"]
    assert [layout_of(step, program) for step in linear] == ["rows", "columns", "rows", "columns"]


@pytest.mark.parametrize(
    ("spec", "shape"),
    [("mlp:20-10-5", (20,)), ("lenet-300-100", (784,)), ("lenet-5", (1, 28, 28))],
)
def test_built_models_need_no_shape(spec: str, shape: tuple[int, ...]) -> None:
    program = trace(regraft.sparsify(models.build(spec), density=0.2))
    assert program.input_shape == shape
    assert str(program.steps[-1].shape) in ("(5,)", "(10,)")


class _Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class _Two(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class _Mixes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(x)


def test_bad_models() -> None:
    with pytest.raises(InputError, match="depends on the values of its input"):
        trace(_Branch(), (3,))
    with pytest.raises(InputError, match="more than one input"):
        trace(_Two(), (3,))
    with pytest.raises(InputError, match="mixes the samples"):
        trace(_Mixes(), (3,))
    with pytest.raises(InputError, match="computes nothing"):
        trace(nn.Sequential(nn.Identity()), (3,))
    with pytest.raises(InputError, match="input shape of the Sequential is not known"):
        trace(nn.Sequential(nn.Conv2d(1, 1, 3)))
    with pytest.raises(InputError, match="keeps no running statistics"):
        trace(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False)))
    with pytest.raises(MismatchError, match=r"does not take samples of shape \(5,\)"):
        trace(nn.Linear(4, 3), (5,))
