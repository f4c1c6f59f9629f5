"""Overlap of tickets, distributions of kept weights and gradient flow, against formulas."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from regraft import Topology, models, prune, sparsify
from regraft.diagnose import distribution, gradient_flow, kept_values, overlap
from regraft.errors import InputError, MismatchError
from regraft.probe import Probe


@given(st.sets(st.integers(0, 11)), st.sets(st.integers(0, 11)), st.sets(st.integers(0, 5)))
def test_overlap_against_sets(a: set[int], b: set[int], c: set[int]) -> None:
    def topology(first: set[int]) -> Topology:
        return Topology({
            "x": ((3, 4), torch.tensor(sorted(first), dtype=torch.int64)),
            "y": ((2, 3), torch.tensor(sorted(c), dtype=torch.int64)),
        })  # fmt: skip

    found = overlap(topology(a), topology(b))
    x, y = found.layers
    assert (x.shared, x.union, x.kept) == (len(a & b), len(a | b), (len(a), len(b)))
    assert x.jaccard == (len(a & b) / len(a | b) if a | b else 1.0)
    assert y.jaccard == 1.0
    assert found.whole.shared == len(a & b) + len(c)
    assert found.whole.union == len(a | b) + len(c)
    assert json.loads(json.dumps(found.plain()))["jaccard"] == found.whole.jaccard


def test_the_expected_overlap_is_that_of_random_tickets() -> None:
    g = torch.Generator().manual_seed(0)

    def ticket() -> Topology:
        return Topology.of(sparsify(nn.Sequential(nn.Linear(200, 100)), density=0.1, generator=g))

    found = [overlap(ticket(), ticket()).whole for _ in range(20)]
    assert np.mean([f.jaccard for f in found]) == pytest.approx(found[0].expected, rel=0.03)
    assert found[0].expected == pytest.approx(0.01 / 0.19)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30), st.integers(1, 7))
def test_distributions_against_numpy(numbers: list[float], bins: int) -> None:
    found = distribution(torch.tensor(numbers, dtype=torch.float64), bins=bins, span=(-5.0, 5.0))
    counts, edges = np.histogram(numbers, bins, (-5.0, 5.0))
    assert found.edges == pytest.approx(edges.tolist())
    assert sum(found.counts) == len(numbers) == found.n
    inside = [min(abs(n - e) for e in edges[1:-1]) > 1e-9 for n in numbers] if bins > 1 else [True]
    if all(inside):  # a value on an edge may round to either side
        assert list(found.counts) == counts.tolist()
    assert found.mean == pytest.approx(np.mean(numbers), abs=1e-12)
    assert found.std == pytest.approx(np.std(numbers), abs=1e-12)
    assert found.positive == np.mean(np.array(numbers) > 0)
    quantiles = np.quantile(numbers, (0.05, 0.25, 0.5, 0.75, 0.95))
    assert list(found.quantiles) == pytest.approx(quantiles.tolist(), abs=1e-12)


def test_distributions_of_nothing_of_one_value_and_of_nan() -> None:
    nothing = distribution(torch.zeros(0), bins=3)
    assert (nothing.n, nothing.counts, nothing.quantiles) == (0, (0, 0, 0), ())
    assert json.dumps(nothing.plain())
    assert sum(distribution(torch.full((7,), 0.25)).counts) == 7
    with pytest.raises(InputError, match="NaN"):
        distribution(torch.tensor([1.0, float("nan")]))
    with pytest.raises(InputError, match="bins is 0"):
        distribution(torch.zeros(3), bins=0)
    with pytest.raises(InputError, match="must increase"):
        distribution(torch.zeros(3), span=(1.0, 1.0))


def test_kept_values_before_and_after() -> None:
    model = models.build("mlp:6-5-4", generator=torch.Generator().manual_seed(0))
    topology = prune.upfront(model, score="magnitude", density=0.3)
    initial = kept_values(model, topology)
    ticket = prune.apply(copy.deepcopy(model), topology)
    assert all(torch.equal(initial[n], v) for n, v in kept_values(ticket, topology).items())
    assert torch.equal(initial["fc1.weight"], model.fc1.weight.flatten()[topology["fc1.weight"].index])
    fewer = prune.upfront(ticket, score="magnitude", density=0.1)
    kept = kept_values(ticket, fewer)["fc1.weight"]
    assert torch.equal(kept, model.fc1.weight.flatten()[fewer["fc1.weight"].index])
    smaller = prune.apply(copy.deepcopy(ticket), fewer)
    with pytest.raises(MismatchError, match="lacks"):
        kept_values(smaller, topology)
    with pytest.raises(MismatchError, match=r"no weight 'fc1\.weight'"):
        kept_values(nn.Linear(3, 2), topology)
    with pytest.raises(MismatchError, match="has shape"):
        kept_values(models.build("mlp:6-7-4"), topology)


def test_gradient_flow_against_autograd() -> None:
    g = torch.Generator().manual_seed(0)
    model = models.build("mlp:6-5-4", activation="tanh", generator=g)
    x, y = torch.randn(30, 6, generator=g), torch.randint(4, (30,), generator=g)
    probe = Probe(nn.functional.cross_entropy, [(x[:20], y[:20]), (x[20:], y[20:])])
    whole = gradient_flow(model, probe)
    grads = torch.autograd.grad(
        nn.functional.cross_entropy(model(x), y), [model.fc1.weight, model.fc2.weight]
    )
    assert whole.norms == {
        n: pytest.approx(float(d.norm()), rel=1e-5)
        for n, d in zip(("fc1.weight", "fc2.weight"), grads, strict=True)
    }
    assert whole.norm == pytest.approx(float(torch.cat([d.flatten() for d in grads]).norm()), rel=1e-5)
    topology = prune.upfront(model, score="magnitude", density=0.3)
    pruned = gradient_flow(model, probe, topology)
    ticket = prune.apply(copy.deepcopy(model), topology)
    assert pruned.norms == pytest.approx(gradient_flow(ticket, probe).norms, rel=1e-6)
    assert pruned.connections == topology.nnz
    assert 0 < pruned.norm < whole.norm
    assert json.loads(json.dumps(pruned.plain()))["norm"] == pruned.norm
    with pytest.raises(InputError, match="needs a loss"):
        gradient_flow(model, Probe())
    with pytest.raises(MismatchError, match="only one"):
        gradient_flow(model, probe, Topology({"x": ((2, 2), torch.tensor([0]))}))
