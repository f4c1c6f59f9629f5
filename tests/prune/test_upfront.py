"""``prune.upfront``: exact counts on every road, what may revive, who decides ties, and clear refusals."""

import itertools

import pytest
from torch import nn

from regraft import Topology, prune, sparsify


def net(*sizes):
    layers = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    for layer in model[::2]:  # one distribution for all, so that no layer dies by its scale
        nn.init.normal_(layer.weight)
    return model


SHAPES = {"0.weight": 12 * 30, "2.weight": 30 * 20, "4.weight": 20 * 5}


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("revive", [False, True])
@pytest.mark.parametrize("floor", [0, 7])
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("path", sorted(prune.PATHS))
@pytest.mark.parametrize("shots", [1, 2, 9])
def test_counts_are_exact(shots, path, scope, floor, revive, sparse):
    model = net(12, 30, 20, 5)
    if sparse:
        sparsify(model, density=0.4, allocate="uniform")
    seen = []
    topology = prune.upfront(
        model, score="magnitude", density=0.11, shots=shots, path=path, scope=scope, floor=floor,
        revive=revive, on_shot=seen.append,
    )  # fmt: skip
    total = sum(SHAPES.values())
    if scope == "global":
        assert topology.nnz == round(0.11 * total)
    else:
        assert {n: c.nnz for n, c in topology.items()} == {n: round(0.11 * s) for n, s in SHAPES.items()}
    assert min(c.nnz for c in topology.values()) >= floor
    assert len(seen) == shots
    assert seen[-1].topology == topology
    start = Topology.of(model).density if sparse else 1.0
    for shot in seen:
        if scope == "global":
            assert sum(k.numel() for k in shot.kept.values()) == round(shot.density * total)
        assert shot.density <= start
    if sparse:
        assert not (topology - Topology.of(model)).nnz
