"""The combine rules against literal values, a dense reference in numpy, and their algebra."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from regraft import SparseLinear, SparseWeight, Topology, merge
from regraft.errors import InputError
from regraft.merging import RULES, Combine, magnitude
from regraft.merging.combine import by_name

NAMES = ["magnitude", "average", "addition", "random", "nothing"]
MakeNet = Callable[..., nn.Module]
Equal = Callable[[nn.Module, nn.Module], bool]


def layer(entries: dict[int, float], size: int = 6, bias: list[float] | None = None) -> nn.Module:
    """A 1 x size layer with these values."""
    index = torch.tensor(sorted(entries), dtype=torch.int64)
    values = torch.tensor([entries[p] for p in sorted(entries)])
    return nn.Sequential(
        SparseLinear(SparseWeight((1, size), index, values), None if bias is None else torch.tensor(bias))
    )


def entries(model: nn.Module) -> dict[int, float]:
    weight = model[0].weight  # type: ignore[index]
    return dict(zip(weight.index.tolist(), weight.values.tolist(), strict=True))


A, B, C = {0: 1.0, 2: -3.0, 5: 0.5}, {2: 2.0, 3: -4.0}, {2: 1.0, 5: -0.25}


@pytest.mark.parametrize(
    ("rule", "over", "merged"),
    [
        ("magnitude", "networks", {0: 1.0, 2: -3.0, 3: -4.0, 5: 0.5}),
        ("addition", "networks", {0: 1.0, 2: 0.0, 3: -4.0, 5: 0.25}),
        ("average", "networks", {0: 1 / 3, 2: 0.0, 3: -4 / 3, 5: 0.25 / 3}),
        ("average", "present", {0: 1.0, 2: 0.0, 3: -4.0, 5: 0.125}),
        ("nothing", "networks", {0: 0.0, 2: 0.0, 3: 0.0, 5: 0.0}),
    ],
)
def test_literal_values(rule: str, over: str, merged: dict[int, float]) -> None:
    found = entries(merge([layer(A), layer(B), layer(C)], rule, density=None, over=over))
    assert found == pytest.approx(merged)


def test_equal_magnitudes_go_to_the_first_network() -> None:
    assert entries(merge([layer({1: 2.0}), layer({1: -2.0})], density=None)) == {1: 2.0}
    assert entries(merge([layer({1: -2.0}), layer({1: 2.0})], density=None)) == {1: -2.0}


def dense_reference(stack: np.ndarray, present: np.ndarray, rule: str, over: str) -> np.ndarray:
    """All rules but random, on [N, ...] arrays with zeros where a network lacks the position."""
    if rule == "magnitude":
        return np.take_along_axis(stack, np.abs(stack).argmax(0)[None], 0)[0]
    if rule == "nothing":
        return np.zeros_like(stack[0])
    total = stack.sum(0)
    if rule == "average":
        return total / (len(stack) if over == "networks" else np.maximum(present.sum(0), 1))
    return total


def as_dense(model: nn.Module, layer: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight, which positions are there, and bias, in float64."""
    module = model[layer]  # type: ignore[index]
    bias = module.bias.detach().double().numpy()
    if isinstance(module, nn.Linear):
        weight = module.weight.detach().double().numpy()
        return weight, np.ones_like(weight, dtype=bool), bias
    there = np.zeros(module.weight.size, dtype=bool)
    there[module.weight.index.numpy()] = True
    shape = tuple(module.weight.shape)
    return module.weight.dense().detach().double().numpy(), there.reshape(shape), bias


@pytest.mark.parametrize(("weights", "biases"), list(product(NAMES, NAMES)))
@pytest.mark.parametrize("over", ["networks", "present"])
def test_all_rules_against_a_dense_reference(net: MakeNet, weights: str, biases: str, over: str) -> None:
    parents = [net(0, 0.2), net(1, 0.6), net(2, None), net(3, 0.4)]
    merged = merge(parents, weights, biases, density=None, over=over)
    for i in (0, 2):
        each = [as_dense(parent, i) for parent in parents]
        weight, there, bias = (np.stack(part) for part in zip(*each, strict=True))
        got_weight, got_there, got_bias = as_dense(merged, i)
        np.testing.assert_array_equal(got_there, there.any(0))
        for rule, stack, present, got in (
            (weights, weight, there, got_weight),
            (biases, bias, np.ones_like(bias, dtype=bool), got_bias),
        ):
            if rule == "random":
                assert ((stack == got) & present).any(0)[present.any(0)].all()
            else:
                np.testing.assert_allclose(
                    got, dense_reference(stack, present, rule, over), rtol=1e-6, atol=1e-7
                )


def test_random_chooses_uniformly_among_those_that_have_the_weight() -> None:
    size, n = 40_000, 5
    parents = [layer({p: float(i + 1) for p in range(size) if i != 2 or p % 2}, size) for i in range(n)]
    merged = merge(parents, "random", density=None, generator=torch.Generator().manual_seed(3))
    values = np.array(list(entries(merged).values()))
    for present, got in ((5, values[1::2]), (4, values[0::2])):
        counts = np.bincount(got.astype(int), minlength=n + 1)[1:]
        counts = counts[counts > 0]
        assert len(counts) == present
        expected = size / 2 / present
        chi_square = ((counts - expected) ** 2 / expected).sum()
        assert chi_square < 20.5  # 99.96 % quantile with 4 degrees of freedom
    # neighbouring positions are drawn independently: equal pairs are as frequent as chance says
    assert abs((values[1::2][1:] == values[1::2][:-1]).mean() - 1 / 5) < 0.015


def test_random_follows_the_generator(net: MakeNet, equal: Equal) -> None:
    parents = [net(0, None), net(1, None)]

    def merged(seed: int) -> nn.Module:
        return merge(parents, "random", "random", generator=torch.Generator().manual_seed(seed))

    assert equal(merged(1), merged(1))
    assert not equal(merged(1), merged(2))


VALUES = st.dictionaries(
    st.integers(0, 11), st.floats(-100, 100, width=32).filter(lambda v: abs(v) > 1e-3), max_size=12
)


@given(VALUES, st.integers(1, 7))
def test_the_average_of_copies_is_the_network(values: dict[int, float], copies: int) -> None:
    model = layer(values, 12, [0.25])
    merged = merge([model] * copies, "average", "average")
    assert entries(merged) == entries(model)
    assert torch.equal(merged[0].bias, model[0].bias)  # type: ignore[index]


@given(st.lists(VALUES, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_order_does_not_matter_where_it_should_not(nets: list[dict[int, float]], random: object) -> None:
    shuffled = list(nets)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for rule in ("average", "addition"):
        one, other = (merge([layer(n, 12) for n in x], rule, density=None) for x in (nets, shuffled))
        assert entries(one) == pytest.approx(entries(other), rel=1e-6, abs=1e-6)
    one, other = (merge([layer(n, 12) for n in x], density=None) for x in (nets, shuffled))
    assert {p: abs(v) for p, v in entries(one).items()} == {p: abs(v) for p, v in entries(other).items()}


@given(st.lists(VALUES, min_size=1, max_size=4))
def test_the_union_is_the_topology(nets: list[dict[int, float]]) -> None:
    for rule in NAMES:
        merged = merge([layer(n, 12) for n in nets], rule, density=None)
        assert set(entries(merged)) == set().union(*nets)


def test_a_function_of_ones_own() -> None:
    def median(values: Tensor, present: Tensor) -> Tensor:
        return values.masked_fill(~present, float("nan")).nanmedian(0).values

    nets = [layer({0: 1.0, 1: 5.0}), layer({0: 9.0}), layer({0: 2.0, 4: 3.0})]
    assert entries(merge(nets, median, density=None)) == {0: 2.0, 1: 5.0, 4: 3.0}


def test_a_fold_of_ones_own() -> None:
    weakest = Combine(
        "weakest",
        lambda kept, new, count, uniform: torch.where((count == 1) | (new.abs() < kept.abs()), new, kept),
    )
    assert entries(merge([layer(A), layer(B), layer(C)], weakest, density=None)) == {
        0: 1.0, 2: 1.0, 3: -4.0, 5: -0.25,
    }  # fmt: skip


def test_functions_that_break_their_promise() -> None:
    nets = [layer(A), layer(B)]
    with pytest.raises(InputError, match="must return one value for each of the 4 positions"):
        merge(nets, lambda values, present: values, density=None)
    with pytest.raises(InputError, match="gives NaN or values beyond"):
        merge(nets, lambda values, present: values.sum(0) * float("nan"), density=None)


def test_values_beyond_the_type_are_refused() -> None:
    big = layer({1: 60_000.0}).half()
    with pytest.raises(
        InputError, match=r"merging '0\.weight' by addition gives NaN or values beyond torch.float16"
    ):
        merge([big, big], "addition", density=None)


def test_sums_are_taken_in_double_precision() -> None:
    nets = [layer({0: v}) for v in (1e8, 1.0, -1e8, 1.0)]
    assert entries(merge(nets, "addition", density=None)) == {0: 2.0}


def test_names() -> None:
    assert list(RULES) == NAMES
    assert by_name(magnitude) is magnitude
    with pytest.raises(InputError, match="unknown weight rule 'averge': did you mean 'average'"):
        merge([layer(A)], "averge")
    with pytest.raises(InputError, match="unknown bias rule 'qq'"):
        merge([layer(A)], biases="qq")
    with pytest.raises(InputError, match="over is 'all', but must be 'networks'"):
        merge([layer(A)], over="all")


def test_nothing_keeps_exact_counts(net: MakeNet) -> None:
    parents = [net(0), net(1)]
    merged = merge(parents, "nothing", "nothing")
    assert Topology.of(merged).nnz == Topology.of(parents[0]).nnz
    assert all(not bool(p.any()) for p in merged.parameters())


@settings(max_examples=10)
@given(st.integers(2, 6))
def test_equal_representation_of_the_average(n: int) -> None:
    """(1 - 1/k) X + (1/k) A, step by step in float64 (thesis 1, section 4.3)."""
    torch.manual_seed(n)
    values = torch.randn(n, dtype=torch.float64)
    running = torch.zeros((), dtype=torch.float64)
    for k, value in enumerate(values, 1):
        running = (1 - 1 / k) * running + value / k
    nets = [layer({0: float(v)}).double() for v in values]
    for model, v in zip(nets, values, strict=True):
        model[0].weight.values.data[0] = v  # type: ignore[index]
    assert entries(merge(nets, "average"))[0] == pytest.approx(float(running), rel=1e-12)
