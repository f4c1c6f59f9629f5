"""Row-wise normalisation against torch's own on the dense weight."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from regraft import SparseLinear, SparseWeight, sparsify
from regraft.errors import InputError
from regraft.evolve import Evolve, RowNormalise, normalise_rows, row_norms


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def alone(weight: SparseWeight) -> SparseLinear:
    return SparseLinear(weight, torch.arange(float(weight.shape[0])))


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 1), st.integers(0, 999))
def test_against_dense(rows: int, columns: int, density: float, seed: int) -> None:
    g = seeded(seed)
    dense = torch.randn(rows, columns, generator=g, dtype=torch.float64)
    dense *= torch.rand(rows, columns, generator=g) < density
    model = alone(SparseWeight.from_dense(dense))
    index = model.weight.index.clone()
    torch.testing.assert_close(row_norms(model.weight), dense.norm(dim=1))
    normalise_rows(model)
    # functional.normalize leaves rows of zeros at zero, as they should be
    torch.testing.assert_close(model.weight.dense().detach(), nn.functional.normalize(dense, dim=1))
    assert model.weight.index.equal(index)


def test_literal() -> None:
    model = alone(SparseWeight((3, 3), torch.tensor([0, 2, 7]), torch.tensor([3.0, -4.0, -0.5])))
    bias = model.bias.detach().clone() if model.bias is not None else None
    normalise_rows(model)
    torch.testing.assert_close(model.weight.values.detach(), torch.tensor([0.6, -0.8, -1.0]))
    assert model.bias is not None
    assert bias is not None
    assert model.bias.equal(bias)


def test_rows_of_zeros_stay() -> None:
    model = alone(SparseWeight((2, 2), torch.tensor([0, 1, 2]), torch.tensor([0.0, -0.0, 2.0])))
    normalise_rows(model)
    assert model.weight.values.tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e-42])
def test_numbers_whose_squares_do_not_exist(scale: float) -> None:
    model = alone(SparseWeight((1, 2), torch.arange(2), torch.tensor([3.0, -4.0]) * scale))
    normalise_rows(model)
    # 1e-42 is denormal: three digits are all it has
    torch.testing.assert_close(model.weight.values.detach(), torch.tensor([0.6, -0.8]), rtol=2e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(200, 10)).to(dtype)
    sparsify(model, density=0.5, generator=seeded())
    normalise_rows(model)
    assert model[0].weight.values.dtype == dtype
    norms = model[0].weight.dense().detach().double().norm(dim=1)
    tolerance = 1e-12 if dtype == torch.float64 else 5e-3
    torch.testing.assert_close(norms, torch.ones(10, dtype=torch.float64), rtol=tolerance, atol=tolerance)


def test_convolutions_by_output_channel() -> None:
    model = sparsify(nn.Sequential(nn.Conv2d(4, 6, 3)), density=0.4, generator=seeded())
    normalise_rows(model)
    norms = model[0].weight.dense().detach().flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(6))


def test_again_is_the_same() -> None:
    model = sparsify(nn.Sequential(nn.Linear(50, 20)), density=0.2, generator=seeded())
    normalise_rows(model)
    once = model[0].weight.values.detach().clone()
    normalise_rows(model)
    torch.testing.assert_close(model[0].weight.values.detach(), once)


def test_the_parameter_and_its_gradient_stay() -> None:
    model = sparsify(nn.Sequential(nn.Linear(10, 5)), density=0.5, generator=seeded())
    values = model[0].weight.values
    model(torch.ones(1, 10)).sum().backward()
    normalise_rows(model)
    assert model[0].weight.values is values
    assert values.grad is not None
    assert values.requires_grad


def test_chosen_layers() -> None:
    model = nn.Sequential(nn.Linear(10, 8), nn.Linear(8, 4))
    model = sparsify(model, density=0.5, generator=seeded())
    before = model[1].weight.values.detach().clone()
    RowNormalise(exclude="1").attach(model).step()
    assert model[1].weight.values.equal(before)
    torch.testing.assert_close(row_norms(model[0].weight), torch.ones(8))


def test_with_evolution_after_each_step() -> None:
    model = nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 4))
    model = sparsify(model, density=0.5, generator=seeded())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    evolver = Evolve(grow="random", generator=seeded()).attach(model, optimizer)
    normalise = RowNormalise().attach(model, optimizer)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(4, 10)).square().mean().backward()
        optimizer.step()
        evolver.step()
        normalise.step()
        for layer in (model[0], model[2]):
            norms = row_norms(layer.weight)
            torch.testing.assert_close(norms[norms > 0], torch.ones_like(norms[norms > 0]))


def test_errors() -> None:
    with pytest.raises(InputError, match="not attached"):
        RowNormalise().step()
    with pytest.raises(InputError, match="no sparse weight"):
        RowNormalise().attach(nn.Linear(2, 2))
    assert RowNormalise().state_dict() == {}
