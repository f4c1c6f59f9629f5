from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from regraft.data.partition import generator_for, of_class, stratified
from regraft.errors import InputError

LABELS = st.lists(st.integers(0, 5), min_size=2, max_size=80).map(torch.tensor)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(y=LABELS, fraction=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_a_stratified_split_is_a_partition_near_each_share(y, fraction, seed):
    count = math.ceil(fraction * len(y) - 1e-9)
    assume(count < len(y))
    sizes = torch.bincount(y)
    try:
        rest, part = stratified(y, fraction, seeded(seed))
    except InputError:
        # every class that could give has one sample, which it keeps
        assert int((sizes - 1).clamp(min=0).sum()) == 0
        return
    assert torch.cat([rest, part]).sort().values.tolist() == list(range(len(y)))
    assert rest.tolist() == sorted(rest.tolist())
    assert part.tolist() == sorted(part.tolist())
    taken = torch.bincount(y[part], minlength=len(sizes))
    assert bool((taken < sizes)[sizes > 0].all()), "every class keeps one sample"
    assert bool(((taken - sizes * count / len(y)).abs() <= 1).all())
    able = torch.minimum((sizes.double() * count / len(y)).ceil().long(), (sizes - 1).clamp(min=0))
    assert len(part) == min(count, int(able.sum()))


@given(y=LABELS, seed=st.integers(0, 99))
def test_the_same_generator_gives_the_same_split(y, seed):
    assume(bool((torch.bincount(y) > 1).any()))
    first, second = (stratified(y, 0.5, seeded(seed)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_sizes_are_scikit_learns():
    from sklearn.model_selection import train_test_split

    for n, fraction in ((50, 1 / 3), (102, 1 / 3), (203, 1 / 3), (400, 1 / 3), (1797, 0.25), (30, 0.1)):
        y = torch.arange(n) % 2
        _, theirs = train_test_split(y.numpy(), test_size=fraction, stratify=y.numpy(), random_state=0)
        assert len(stratified(y, fraction, seeded())[1]) == len(theirs)


def test_ties_between_classes_are_broken_by_the_generator():
    y = torch.arange(10).repeat_interleave(3)
    first = {
        tuple(torch.bincount(y[stratified(y, 0.5, seeded(s))[1]], minlength=10).tolist()) for s in range(8)
    }
    assert len(first) > 1
    assert all(sum(counts) == 15 and set(counts) == {1, 2} for counts in first)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan"), "half", True])
def test_fractions_out_of_range(fraction):
    with pytest.raises(InputError, match="must be in"):
        stratified(torch.tensor([0, 0, 1]), fraction, seeded())


def test_too_few_samples():
    with pytest.raises(InputError, match="too few"):
        stratified(torch.tensor([0, 1]), 0.9, seeded())
    with pytest.raises(InputError, match="3 classes are too few"):
        stratified(torch.tensor([0, 1, 2]), 0.5, seeded())


def test_a_generator_depends_on_seed_and_purpose_alone():
    def draw(*key):
        return torch.randperm(20, generator=generator_for(*key)).tolist()

    assert draw(0, "a") == draw(0, "a")
    assert len({tuple(draw(s, p)) for s in (0, 1, -1, 2**70) for p in ("a", "b")}) == 8
    with pytest.raises(InputError, match="seed"):
        generator_for(0.5)  # type: ignore[arg-type]


@given(y=LABELS, small=st.integers(1, 10), seed=st.integers(0, 9))
def test_fewer_of_a_class_are_among_more(y, small, seed):
    label = int(y[0])
    have = int((y == label).sum())
    assume(small <= have)
    few, all_of = (of_class(y, label, k, seed, "training", "it") for k in (small, have))
    assert len(few) == small
    assert set(few.tolist()) <= set(all_of.tolist())
    assert bool((y[all_of] == label).all())
    assert all_of.tolist() == of_class(y, label, None, seed, "training", "it").tolist()


def test_more_than_there_are():
    with pytest.raises(InputError, match="it has 2 training samples, fewer than the 3"):
        of_class(torch.tensor([0, 0, 1]), 0, 3, 0, "training", "it")
