"""From the big student to the student: which units stay, and the parents' connections."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from regraft import Topology
from regraft.errors import InputError
from regraft.gates import Gated, Gates
from regraft.gates.compress import best_units, compress
from regraft.graph import trace

MakeNet = Callable[..., nn.Module]


def gates_at(*probabilities: float) -> Gates:
    gates = Gates({"fc1": len(probabilities)}, spread=0.0)
    gates.log_alpha.data = torch.tensor([gates.distribution.location(p) for p in probabilities])
    return gates


def test_the_most_likely_units_stay_in_their_order() -> None:
    units = best_units(gates_at(0.2, 0.9, 0.4, 0.6, 0.5), {"fc1": 3})
    assert units["fc1"].tolist() == [1, 3, 4]


def test_among_equals_the_first_stay() -> None:
    assert best_units(gates_at(0.5, 0.5, 0.5, 0.5), {"fc1": 2})["fc1"].tolist() == [0, 1]


def test_a_group_that_is_closed_wholly_is_refused() -> None:
    with pytest.raises(InputError, match="closed all 2 units of the group 'fc1'"):
        best_units(gates_at(0.01, 0.02), {"fc1": 1})


def test_where_gates_have_decided_compression_changes_nothing(net: MakeNet) -> None:
    model = net(0)
    gates = Gates({"fc1": 10, "fc2": 8}, spread=0.0)
    gates.log_alpha.data = torch.where(torch.arange(18) % 2 == 0, 20.0, -20.0)
    gated = Gated(model, trace(model), gates).eval()
    small = compress(gated, {"fc1": 5, "fc2": 4}).eval()
    x = torch.randn(9, 6)
    assert torch.allclose(small(x), gated(x), atol=1e-6)
    assert small.fc2.weight.shape == (4, 5)


def test_folding_takes_over_gates_that_are_half_open(net: MakeNet) -> None:
    model = net(0)
    gates = Gates({"fc1": 10, "fc2": 8}, location=0.0, spread=0.5)
    gated = Gated(model, trace(model), gates).eval()
    x, everything = torch.randn(9, 6), {"fc1": 10, "fc2": 8}
    assert torch.allclose(compress(gated, everything, fold=True)(x), gated(x), atol=1e-6)
    assert torch.allclose(compress(gated, everything)(x), model(x), atol=1e-6)


def test_counts_are_restored(net: MakeNet) -> None:
    model = net(0, 0.4)
    gates = Gates({"fc1": 10, "fc2": 8}, location=9.0)
    nnz = {n: c.nnz for n, c in Topology.of(model).items()}
    counts = {**nnz, "fc1.weight": nnz["fc1.weight"] - 5, "fc2.weight": 60}
    small = compress(Gated(model, trace(model), gates), {"fc1": 10, "fc2": 8}, counts)
    assert {n: c.nnz for n, c in Topology.of(small).items()} == counts
    small = compress(Gated(model, trace(model), gates), {"fc1": 10, "fc2": 8}, counts, scope="global")
    assert Topology.of(small).nnz == sum(counts.values())


def test_units_without_connections_are_kept_last() -> None:
    gates = gates_at(0.9, 0.8, 0.5, 0.4)
    gates.weigh(torch.tensor([0.0, 3.0, 0.0, 2.0]))
    assert best_units(gates, {"fc1": 2})["fc1"].tolist() == [1, 3]
    assert best_units(gates, {"fc1": 3})["fc1"].tolist() == [0, 1, 3]


def test_closed_units_lose_their_connections_without_a_change(net: MakeNet) -> None:
    model = net(0, 0.6)
    gates = Gates({"fc1": 10, "fc2": 8}, spread=0.0)
    gates.log_alpha.data = torch.where(torch.arange(18) % 3 == 0, -20.0, 20.0)
    gated = Gated(model, trace(model), gates).eval()
    x = torch.randn(9, 6)
    before, nnz = gated(x), Topology.of(model).nnz
    counts = {n: c.nnz for n, c in Topology.of(model).items()}
    small = compress(gated, {"fc1": 10, "fc2": 8}, counts)
    assert torch.allclose(small(x), before, atol=1e-6)
    assert Topology.of(small).nnz == nnz == Topology.of(model).nnz
    assert bool((small.fc2.weight.dense()[:, 0::3] == 0).all())
