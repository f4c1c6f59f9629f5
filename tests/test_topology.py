"""Topology: a value with set algebra and distances, against Python's sets."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import regraft
from regraft import Topology
from regraft.errors import InputError, MismatchError
from regraft.positions import sample
from regraft.topology import expected_nnstd

SHAPES = {"a": (3, 4), "b": (2, 5)}


def sets():
    return st.fixed_dictionaries({n: st.sets(st.integers(0, s[0] * s[1] - 1)) for n, s in SHAPES.items()})


def topology(positions):
    return Topology(
        {n: (SHAPES[n], torch.tensor(sorted(p), dtype=torch.int64)) for n, p in positions.items()}
    )


def as_sets(t):
    return {n: set(c.index.tolist()) for n, c in t.items()}


@given(sets(), sets())
def test_algebra_equals_that_of_sets(x, y):
    a, b = topology(x), topology(y)
    assert as_sets(a | b) == {n: x[n] | y[n] for n in SHAPES}
    assert as_sets(a & b) == {n: x[n] & y[n] for n in SHAPES}
    assert as_sets(a - b) == {n: x[n] - y[n] for n in SHAPES}


@given(sets(), sets(), sets())
def test_laws(x, y, z):
    a, b, c = topology(x), topology(y), topology(z)
    assert a | b == b | a
    assert a & b == b & a
    assert a | (b & c) == (a | b) & (a | c)
    assert a - (b | c) == (a - b) & (a - c)
    assert (a - b) | (a & b) == a
    assert (a == b) == (x == y)
    if a == b:
        assert hash(a) == hash(b)


@given(sets(), sets())
def test_distances_equal_those_of_sets(x, y):
    a, b = topology(x), topology(y)
    shared = {n: len(x[n] & y[n]) for n in SHAPES}
    unique = {n: len(x[n] ^ y[n]) for n in SHAPES}

    def distance(s, u):
        return u / (s + u) if s + u else 0.0

    assert a.nnstd_by_weight(b) == pytest.approx({n: distance(shared[n], unique[n]) for n in SHAPES})
    assert a.nnstd(b) == pytest.approx(distance(sum(shared.values()), sum(unique.values())))
    assert a.jaccard(b) == pytest.approx(1.0 - a.nnstd(b))
    assert a.jaccard_by_weight(b) == pytest.approx({n: 1 - d for n, d in a.nnstd_by_weight(b).items()})
    assert a.overlap(b) == {n: (shared[n], shared[n] + unique[n]) for n in SHAPES}


@given(sets(), sets(), sets())
def test_nnstd_is_a_metric(x, y, z):
    a, b, c = topology(x), topology(y), topology(z)
    assert a.nnstd(a) == 0.0
    assert a.nnstd(b) == b.nnstd(a)
    assert 0.0 <= a.nnstd(b) <= 1.0
    assert a.nnstd(c) <= a.nnstd(b) + b.nnstd(c) + 1e-12


def test_ends_of_the_scale():
    a = topology({"a": {0, 1}, "b": {2}})
    assert a.nnstd(topology({"a": {0, 1}, "b": {2}})) == 0.0
    assert a.nnstd(topology({"a": {5}, "b": {3, 4}})) == 1.0


@pytest.mark.parametrize("s", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99])
def test_expected_nnstd_is_what_random_topologies_have(s):
    """Mean NNSTD of 40 independent pairs, within four standard errors (and 2S/(1+S) by the closed form)."""
    generator = torch.Generator().manual_seed(11)
    shape, k = (100, 60), round((1 - s) * 6000)
    distances = torch.tensor(
        [
            Topology({"w": (shape, sample(6000, k, generator))}).nnstd(
                Topology({"w": (shape, sample(6000, k, generator))})
            )
            for _ in range(40)
        ],
        dtype=torch.float64,
    )
    error = float(distances.std() / 40**0.5)
    assert expected_nnstd(s) == pytest.approx(2 * s / (1 + s))
    assert abs(float(distances.mean()) - expected_nnstd(s)) < 4 * error


def test_expected_nnstd_of_unequal_densities_over_several_weights(generator):
    def draw(counts):
        return Topology(
            {
                "a": ((40, 50), sample(2000, counts[0], generator)),
                "b": ((100, 10), sample(1000, counts[1], generator)),
            }
        )

    pairs = [(draw((100, 600)), draw((900, 50))) for _ in range(60)]
    measured = sum(a.nnstd(b) for a, b in pairs) / len(pairs)
    a, b = pairs[0]
    shared = 2000 * (100 / 2000) * (900 / 2000) + 1000 * 0.6 * 0.05
    assert a.expected_nnstd(b) == pytest.approx(1 - shared / (1650 - shared))
    assert measured == pytest.approx(a.expected_nnstd(b), abs=0.005)


def test_expected_nnstd_ends_and_range():
    assert expected_nnstd(0.0) == 0.0
    assert expected_nnstd(1.0) == 1.0
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match=r"must be in \[0, 1\]"):
            expected_nnstd(bad)


def test_counts_and_densities():
    t = topology({"a": {0, 1, 2}, "b": {9}})
    assert (t.nnz, t.size) == (4, 22)
    assert t.density == pytest.approx(4 / 22)
    assert t.sparsity == pytest.approx(18 / 22)
    assert (t["a"].density, t["b"].nnz, t["b"].size) == (0.25, 1, 10)
    assert repr(t) == "Topology(a: 3/12, b: 1/10)"
    assert list(t) == ["a", "b"]
    assert len(t) == 2
    assert "a" in t
    assert "c" not in t


def test_it_is_the_topology_of_the_moment():
    model = regraft.sparsify(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4)), 0.5)
    before = Topology.of(model)
    kept = as_sets(before)
    model[0].weight.rewire(model[0].weight.index[:2], torch.empty(0))
    with torch.no_grad():
        model[1].weight.index.zero_()
    assert as_sets(before) == kept
    assert list(before) == ["0.weight", "1.weight"]


def test_later_changes_of_the_callers_tensor_do_not_touch_it():
    index = torch.tensor([0, 1])
    t = Topology({"w": ((2, 2), index)})
    index[1] = 3
    assert t["w"].index.tolist() == [0, 1]


def test_it_cannot_be_assigned_to():
    t = topology({"a": {0}, "b": set()})
    with pytest.raises(TypeError):
        t["a"] = t["b"]
    with pytest.raises(AttributeError):
        t["a"].shape = (1, 1)


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])  # noqa: S301
def test_it_travels_between_processes(copier):
    t = topology({"a": {0, 5}, "b": {3}})
    assert copier(t) == t


def test_equality_and_hash_do_not_depend_on_the_order_of_weights():
    a, b = ((3, 4), torch.tensor([1])), ((2, 5), torch.tensor([2]))
    one, other = Topology({"a": a, "b": b}), Topology({"b": b, "a": a})
    assert one == other
    assert hash(one) == hash(other)
    assert one != Topology({"a": a})
    assert one != "topology"


def test_shape_belongs_to_equality():
    assert Topology({"w": ((2, 6), torch.tensor([1]))}) != Topology({"w": ((3, 4), torch.tensor([1]))})


def test_connectivity_pattern_counts_what_leaves_each_input():
    dense = torch.zeros(4, 3, 2, 2)
    dense[:, 1] = 1.0
    dense[0, 2, 1, 1] = 1.0
    t = Topology({"conv": (tuple(dense.shape), dense.flatten().nonzero().squeeze(1))})
    assert t.connectivity_pattern().tolist() == [0, 16, 1]
    two = topology({"a": {0, 4, 8, 3}, "b": {4, 9}})
    assert two.connectivity_pattern().tolist() == [3, 0, 0, 1]
    assert two.connectivity_pattern("b").tolist() == [0, 0, 0, 0, 2]


def test_wrong_use_is_refused_by_name():
    t = topology({"a": {0}, "b": {1}})
    with pytest.raises(KeyError, match="unknown weight 'aa': did you mean 'a'"):
        t["aa"]
    with pytest.raises(MismatchError, match="'b' is in only one of the two networks"):
        t | Topology({"a": t["a"]})
    with pytest.raises(MismatchError, match="'b' is in only one of the two networks"):
        Topology({"a": t["a"]}).nnstd(t)
    with pytest.raises(MismatchError, match=r"'b' has shape \(2, 5\) in one network and \(5, 2\)"):
        t.nnstd(Topology({"a": t["a"], "b": ((5, 2), torch.tensor([1]))}))
    with pytest.raises(InputError, match=r"^w is not strictly increasing"):
        Topology({"w": ((2, 2), torch.tensor([1, 0]))})
    with pytest.raises(InputError, match=r"the Linear has no sparse weight: call regraft.sparsify"):
        Topology.of(nn.Linear(2, 2))
