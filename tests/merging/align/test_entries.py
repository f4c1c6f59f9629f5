"""Tensors whose units are moved and compared: the sparse way gives what the dense way gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.graph.zoo import ZOO, network
from torch import Tensor

from regraft import graph as graphs
from regraft.errors import InputError
from regraft.graph import Slot
from regraft.merging.align.entries import Entries, entries_of, inner, mean
from regraft.weight import SparseWeight

SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


def drawn(shape: tuple[int, ...], seed: int, density: float) -> tuple[Entries, Tensor]:
    """A sparse tensor and the same as a dense one."""
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(shape, generator=generator, dtype=torch.float64)
    dense *= torch.rand(shape, generator=generator) < density
    index = dense.flatten().nonzero().squeeze(1)
    return Entries(shape, index, dense.flatten()[index]), dense


def dense_of(entries: Entries) -> Tensor:
    if entries.index is None:
        return entries.values
    flat = torch.zeros(math.prod(entries.shape), dtype=torch.float64)
    flat[entries.index] = entries.values
    return flat.view(entries.shape)


@given(SHAPES, st.integers(0, 9999), st.data())
def test_moving_is_indexing(shape: tuple[int, ...], seed: int, data: st.DataObject) -> None:
    sparse, dense = drawn(shape, seed, 0.5)
    axes = data.draw(st.sets(st.integers(0, len(shape) - 1)))
    sources = {axis: torch.randperm(shape[axis]) for axis in axes}
    expected = dense
    for axis, source in sources.items():
        expected = expected.index_select(axis, source)
    moved = sparse.moved(sources)
    assert torch.equal(dense_of(moved), expected)
    assert moved.index is not None
    assert bool((moved.index.diff() > 0).all())
    assert torch.equal(Entries(shape, None, dense).moved(sources).values, expected)


@given(SHAPES, st.integers(0, 9999), st.data())
def test_rows_of_a_slot_are_its_units(shape: tuple[int, ...], seed: int, data: st.DataObject) -> None:
    sparse, dense = drawn(shape, seed, 0.5)
    axis = data.draw(st.integers(0, len(shape) - 1))
    offset = data.draw(st.integers(0, shape[axis] - 1))
    units = data.draw(st.integers(1, shape[axis] - offset))
    repeat = data.draw(st.integers(1, (shape[axis] - offset) // units))
    slot = Slot("w", axis, "read", offset, repeat)
    expected = dense.movedim(axis, 0)[offset : offset + units * repeat].reshape(units, -1).numpy()
    assert np.array_equal(Entries(shape, None, dense).rows(slot, units), expected)
    assert np.array_equal(sparse.rows(slot, units).toarray(), expected)


@given(SHAPES, st.integers(0, 9999))
def test_inner_products_and_means(shape: tuple[int, ...], seed: int) -> None:
    (a, da), (b, db) = drawn(shape, seed, 0.7), drawn(shape, seed + 1, 0.4)
    kinds = [(x, y) for x in (a, Entries(shape, None, da)) for y in (b, Entries(shape, None, db))]
    for x, y in kinds:
        assert inner(x, y) == pytest.approx(float((da * db).sum()), abs=1e-12)
        torch.testing.assert_close(dense_of(mean([x, y, x])), (2 * da + db) / 3)
    assert mean([a]) is a


@pytest.mark.parametrize("density", [None, 0.5])
@pytest.mark.parametrize("name", ZOO)
def test_entries_are_the_models_tensors_without_statistics(name: str, density: float | None) -> None:
    model = network(name, density=density)
    graph = graphs.trace(model, ZOO[name][1])
    found = entries_of(model, graph, 1)
    tensors = dict(model.named_parameters())
    for entry, entries in found.items():
        module = dict(model.named_modules()).get(entry)
        expected = module.dense() if isinstance(module, SparseWeight) else tensors[entry]
        assert torch.equal(dense_of(entries), expected.detach())
        assert (entries.index is not None) == isinstance(module, SparseWeight)
    assert not [n for n in found if "running" in n or n.endswith(".more")]


def test_values_that_are_not_finite_are_refused() -> None:
    model = network("mlp")
    with torch.no_grad():
        next(model.parameters())[0] = math.nan
    with pytest.raises(InputError, match=r"of network 2 \(Sequential\) holds NaN or infinite values"):
        entries_of(model, graphs.trace(network("mlp")), 2)
