"""Exact counts after selection: the smallest go, and zeros fill what is left."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from regraft import SparseLinear, SparseWeight, Topology
from regraft.merging.keep import Scope
from regraft.merging.neurons.budget import _dealt, within

SIZES = ((6, 5), (4, 6), (3, 4))


def model_with(stored: tuple[int, ...], seed: int) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for shape, k in zip(SIZES, stored, strict=True):
        size = shape[0] * shape[1]
        index = torch.randperm(size, generator=generator)[:k].sort().values
        layers.append(SparseLinear(SparseWeight(shape, index, torch.randn(k, generator=generator)), None))
    return nn.Sequential(*layers)


COUNTS = st.tuples(st.integers(0, 30), st.integers(0, 24), st.integers(0, 12))


@given(COUNTS, COUNTS, st.sampled_from(["layer", "global"]), st.integers(0, 5))
def test_counts_are_exact_and_the_largest_stay(
    stored: tuple[int, ...], wanted: tuple[int, ...], scope: Scope, seed: int
) -> None:
    model = model_with(stored, seed)
    before = [layer.weight.dense().detach() for layer in model]
    counts = {f"{i}.weight": k for i, k in enumerate(wanted)}
    made = within(model, counts, scope, torch.Generator().manual_seed(seed))
    weights = [layer.weight for layer in made]
    assert sum(w.nnz for w in weights) == sum(wanted)
    if scope == "layer":
        assert tuple(w.nnz for w in weights) == wanted
    kept: list[Tensor] = []
    for w, old in zip(weights, before, strict=True):
        now = w.values.detach()
        assert torch.equal(now[now != 0], old.flatten()[w.index[now != 0]])
        kept.append(now[now != 0].abs())
    if scope == "global":
        largest = torch.cat([old[old != 0].abs() for old in before]).sort(descending=True).values
        assert torch.equal(torch.cat(kept).sort(descending=True).values, largest[: sum(wanted)])
    else:
        for k, old, mine in zip(wanted, before, kept, strict=True):
            largest = old[old != 0].abs().sort(descending=True).values[:k]
            assert torch.equal(mine.sort(descending=True).values, largest)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.data())
def test_dealing_is_exact_and_never_too_much(missing: list[int], data: st.DataObject) -> None:
    room = data.draw(st.integers(0, sum(missing)))
    names = {str(i): k for i, k in enumerate(missing)}
    dealt = _dealt(room, names)
    assert sum(dealt.values()) == room
    assert all(0 <= dealt[n] <= k for n, k in names.items())


def test_new_connections_follow_the_generator() -> None:
    def made(seed: int | None) -> Topology:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        counts = {"0.weight": 9, "1.weight": 9, "2.weight": 9}
        return Topology.of(within(model_with((2, 2, 2), 0), counts, "layer", generator))

    assert made(1) == made(1)
    assert made(None) == made(None)
    assert made(1) != made(2)


def test_a_dense_layer_that_is_named_becomes_sparse() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    made = within(model, {"0.weight": 5}, "layer")
    assert Topology.of(made).nnz == 5
    assert type(made[1]) is nn.Linear


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_nothing_named_changes_nothing(scope: Scope) -> None:
    model = model_with((3, 3, 3), 0)
    before = Topology.of(model)
    assert within(model, {}, scope) is model
    assert Topology.of(model) == before
