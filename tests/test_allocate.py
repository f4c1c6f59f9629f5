"""Allocation: exact totals, no layer over its size, and the papers' proportions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from regraft import allocate
from regraft.allocate import ErdosRenyi
from regraft.errors import InputError

LINEAR = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=6)
KERNELS = st.lists(
    st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 5), st.integers(1, 5)),
    min_size=1,
    max_size=5,
)
DENSITY = st.floats(0.001, 1.0)


# each member's raw density of a layer, before scaling and capping, as its paper writes it
def _uniform(shape):
    return 1.0


def _erdos_renyi(shape):
    n_out, n_in, *_ = shape
    return (n_in + n_out) / (n_in * n_out)


def _erdos_renyi_kernel(shape):
    return (shape[0] + shape[1] + sum(shape[2:])) / np.prod(shape)


CONFORMANCE = {
    "uniform": (allocate.uniform, _uniform),
    "erdos-renyi": (allocate.erdos_renyi, _erdos_renyi),
    "erdos-renyi-kernel": (allocate.erdos_renyi_kernel, _erdos_renyi_kernel),
}


def reference(raw, shapes, density):
    """Layer densities min(1, c * raw): c found by bisection, not by filling layers one by one."""
    sizes = np.array([math.prod(s) for s in shapes], dtype=float)
    weights = np.array([raw(s) for s in shapes])

    def excess(log_c):
        return (np.minimum(1.0, np.exp(log_c) * weights) * sizes).sum() - density * sizes.sum()

    if density >= 1.0:
        return np.ones(len(sizes))
    c = math.exp(brentq(excess, -60.0, 60.0, xtol=1e-14))
    return np.minimum(1.0, c * weights)


def test_every_member_is_in_the_table():
    assert set(allocate.ALLOCATIONS) == set(CONFORMANCE)
    assert all(allocate.by_name(name) is member for name, (member, _) in CONFORMANCE.items())


@pytest.mark.parametrize("name", CONFORMANCE)
@given(shapes=st.one_of(LINEAR, KERNELS), density=DENSITY)
def test_totals_are_exact_and_no_layer_is_over_full(name, shapes, density):
    counts = CONFORMANCE[name][0](shapes, density)
    sizes = [math.prod(s) for s in shapes]
    assert all(isinstance(k, int) for k in counts)
    assert sum(counts) == round(density * sum(sizes))
    assert all(0 <= k <= n for k, n in zip(counts, sizes, strict=True))


@pytest.mark.parametrize("name", CONFORMANCE)
@given(shapes=st.one_of(LINEAR, KERNELS), density=DENSITY)
def test_proportions_equal_an_independent_solution(name, shapes, density):
    member, raw = CONFORMANCE[name]
    sizes = np.array([math.prod(s) for s in shapes])
    expected = reference(raw, shapes, density) * sizes
    # one for the rounding of the total, one for that of the layer
    assert np.abs(np.array(member(shapes, density)) - expected).max() <= 1.0 + 0.5 + 1e-6


@pytest.mark.parametrize("name", CONFORMANCE)
@given(shapes=st.one_of(LINEAR, KERNELS))
def test_density_one_is_the_dense_network(name, shapes):
    assert CONFORMANCE[name][0](shapes, 1.0) == [math.prod(s) for s in shapes]


@given(LINEAR)
def test_kernels_do_not_matter_for_linear_layers(shapes):
    assert allocate.erdos_renyi(shapes, 0.3) == allocate.erdos_renyi_kernel(shapes, 0.3)


@given(LINEAR, st.floats(0.1, 30.0))
def test_by_epsilon_equals_by_density_for_the_matching_epsilon(shapes, epsilon):
    """Up to the rounding of each layer: epsilon rounds per layer, density once for the total."""
    by_epsilon = ErdosRenyi(epsilon)(shapes)
    total, size = sum(by_epsilon), sum(math.prod(s) for s in shapes)
    if total == 0:
        return
    by_density = allocate.erdos_renyi(shapes, total / size)
    assert sum(by_density) == total
    assert all(abs(a - b) <= len(shapes) for a, b in zip(by_epsilon, by_density, strict=True))


def test_the_counts_of_thesis_three():
    """784-1000-1000-1000-10 at epsilon 20: appendix B has about 130,000 of 2,797,010 parameters, x21.5."""
    shapes = [(1000, 784), (1000, 1000), (1000, 1000), (10, 1000)]
    counts = ErdosRenyi(20)(shapes)
    assert counts == [35_680, 40_000, 40_000, 10_000]  # the output layer stays full: 20 * 1010 > 10,000
    assert sum(counts) == 125_680
    biases = 3010
    dense = sum(math.prod(s) for s in shapes) + biases
    assert dense == 2_797_010
    assert sum(counts) + biases == 128_690
    assert dense / (sum(counts) + biases) == pytest.approx(21.5, abs=0.3)
    assert 0.04 < sum(counts) / (dense - biases) < 0.05


def test_epsilon_counts_kernel_positions_as_inputs():
    assert ErdosRenyi(1.0)([(16, 3, 3, 3), (10, 10)]) == [16 + 27, 20]
    assert ErdosRenyi(1e9)([(16, 3, 3, 3)]) == [432]
    assert ErdosRenyi(20)([(10, 10)], density=0.5) == ErdosRenyi(20)([(10, 10)])


def test_literal_counts_with_a_capped_layer():
    # 28 of 110: 2.55 and 25.45, the larger remainder gets the one left over
    assert allocate.uniform([(2, 5), (10, 10)], 0.25) == [3, 25]
    # 202 of 404 at raw densities 1 and 0.1: the small layer would pass 1, is filled, the other gets the rest
    assert allocate.erdos_renyi([(2, 2), (20, 20)], 0.5) == [4, 198]
    assert allocate.erdos_renyi_kernel([(2, 2, 1, 1), (20, 20, 1, 1)], 0.5) == [4, 198]


def test_no_layers_and_layers_without_positions():
    for member, _ in CONFORMANCE.values():
        assert member([], 0.5) == []
        assert member([(0, 5), (4, 5)], 0.5) == [0, 10]
    assert ErdosRenyi(2)([(0, 5)]) == [0]


@pytest.mark.parametrize("name", CONFORMANCE)
@pytest.mark.parametrize("density", [0.0, -0.5, 1.01, math.nan])
def test_bad_densities_are_refused(name, density):
    with pytest.raises(InputError, match=r"must be in \(0, 1\]"):
        CONFORMANCE[name][0]([(3, 4)], density)


@pytest.mark.parametrize("epsilon", [0, -1, math.nan, math.inf, "20"])
def test_bad_epsilons_are_refused(epsilon):
    with pytest.raises(InputError, match="must be a positive number; the usual one is 20"):
        ErdosRenyi(epsilon)


def test_unknown_names_get_a_suggestion():
    with pytest.raises(InputError, match="unknown allocation 'erdos-reny': did you mean 'erdos-renyi'"):
        allocate.by_name("erdos-reny")
