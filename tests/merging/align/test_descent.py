"""Coordinate descent: the cost is the dense one, every step goes up, the best of small cases is found."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.graph.zoo import ZOO, network, permutations
from torch import Tensor, nn

from regraft import graph as graphs
from regraft import sparsify
from regraft.graph import Graph, Group, take
from regraft.merging.align.descent import Pair, assign, descend, grown, unmoved
from regraft.merging.align.entries import MATCHED, entries_of
from regraft.weight import SparseWeight


def pair_of(name: str, density: float | None) -> tuple[Graph, Pair, nn.Module, nn.Module]:
    a, b = network(name, seed=1, density=density), network(name, seed=2, density=density)
    graph = graphs.trace(a, ZOO[name][1])
    return graph, Pair(graph, entries_of(a, graph, 1), entries_of(b, graph, 2)), a, b


def dense(model: nn.Module) -> dict[str, Tensor]:
    """All parameters by name, sparse ones dense."""
    sparse = {n: m.dense().detach() for n, m in model.named_modules() if isinstance(m, SparseWeight)}
    return {n: p.detach() for n, p in model.named_parameters()} | sparse


def dense_likeness(group: Group, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> np.ndarray:
    """Sum over the slots of the inner products of the units' values, from dense tensors."""
    total = torch.zeros(group.units, group.units, dtype=torch.float64)
    for slot in group.of_kind(*MATCHED):
        rows = [
            t[slot.tensor].movedim(slot.axis, 0)[slot.offset : slot.offset + group.units * slot.repeat]
            for t in (a, b)
        ]
        total += rows[0].reshape(group.units, -1) @ rows[1].reshape(group.units, -1).T
    return total.numpy()


@pytest.mark.parametrize("density", [None, 0.4])
@pytest.mark.parametrize("name", ZOO)
def test_likeness_and_total_are_those_of_dense_weights(name: str, density: float | None) -> None:
    graph, pair, a, b = pair_of(name, density)
    order = permutations(graph, 3)
    for group in graph.free:
        together = next(bundle for bundle in graph.bundles if group in bundle)  # share no tensor
        others = {n: o for n, o in order.items() if n not in {g.name for g in together}}
        expected = dense_likeness(group, dense(a), dense(take(b, graph, others)))
        np.testing.assert_allclose(pair.likeness(group, order), expected, atol=1e-10)
    names = {slot.tensor for group in graph.free for slot in group.of_kind(*MATCHED)}
    left, right = dense(a), dense(take(b, graph, order))
    assert pair.total(order) == pytest.approx(sum(float((left[n] * right[n]).sum()) for n in names))


@pytest.mark.parametrize("name", ["mlp", "vgg", "resnet-18", "mixed", "tokens"])
def test_no_step_goes_down(name: str) -> None:
    graph, pair, _, _ = pair_of(name, 0.5)
    for start in (unmoved(graph), permutations(graph, 0), grown(pair)):
        totals = [pair.total(start)]
        for passes in (1, 2, 3, 50):
            generator = torch.Generator().manual_seed(5)
            order, total = descend(pair, start, generator, max_passes=passes, tolerance=0.0)
            assert total == pytest.approx(pair.total(order))
            totals.append(total)
        assert all(b >= a - 1e-9 for a, b in itertools.pairwise(totals))
        for group in graph.free:
            assert torch.equal(order[group.name].sort().values, torch.arange(group.units))


def test_one_hidden_layer_is_solved_exactly() -> None:
    """With one group there is one assignment problem: no permutation is better."""
    torch.manual_seed(0)
    a, b = (
        sparsify(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double(), 0.6) for _ in range(2)
    )
    graph = graphs.trace(a)
    pair = Pair(graph, entries_of(a, graph, 1), entries_of(b, graph, 2))
    _, total = descend(pair, unmoved(graph), torch.Generator(), max_passes=5, tolerance=0.0)
    best = max(pair.total({"0": torch.tensor(p)}) for p in itertools.permutations(range(5)))
    assert total == pytest.approx(best)


class Loop(nn.Module):
    """A layer that reads the units that it makes: the total is quadratic in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        found: Tensor = self.last(torch.relu(x + self.inner(x)))
        return found


@pytest.mark.parametrize("seed", range(5))
def test_a_step_that_would_lower_a_quadratic_total_is_not_taken(seed: int) -> None:
    torch.manual_seed(seed)
    a, b = Loop().double(), Loop().double()
    graph = graphs.trace(a)
    assert len(graph.free) == 1
    pair = Pair(graph, entries_of(a, graph, 1), entries_of(b, graph, 2))
    assert pair.neighbours(graph.free) == {graph.free[0].name}
    start = permutations(graph, seed)
    order, total = descend(pair, start, torch.Generator(), max_passes=20, tolerance=0.0)
    assert total == pytest.approx(pair.total(order))
    assert total >= pair.total(start) - 1e-12


@given(st.integers(1, 6), st.integers(0, 9999))
def test_assign_is_the_best_permutation(n: int, seed: int) -> None:
    likeness = np.random.default_rng(seed).standard_normal((n, n))
    found = assign(likeness)
    best = max(sum(likeness[u, v] for u, v in enumerate(p)) for p in itertools.permutations(range(n)))
    assert sum(likeness[u, v] for u, v in enumerate(found.tolist())) == pytest.approx(best)
