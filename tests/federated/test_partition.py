"""Partitions: every sample has one owner, and the distributions are what they say."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regraft.data import Split
from regraft.errors import InputError
from regraft.federated.partition import IID, ByClass, Dirichlet, parse, partitioned

Y = torch.arange(10).repeat(100)


@given(
    st.sampled_from([IID(), Dirichlet(0.1, least=1), Dirichlet(5.0), ByClass(1), ByClass(3)]),
    st.integers(1, 30),
    st.integers(0, 5),
)
def test_every_sample_belongs_to_one_client(partition, clients, seed):
    parts = partition(Y, clients, torch.Generator().manual_seed(seed))
    assert len(parts) == clients
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(1000))
    assert all(len(p) and bool((p[1:] > p[:-1]).all()) for p in parts)
    again = partition(Y, clients, torch.Generator().manual_seed(seed))
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))


def spread(partition):
    """Mean over clients of the largest share of a class."""
    parts = partition(Y, 10, torch.Generator().manual_seed(0))
    return sum(float(torch.bincount(Y[p]).max() / len(p)) for p in parts) / 10


def test_the_smaller_alpha_the_more_unlike_are_the_clients():
    shares = [spread(p) for p in (Dirichlet(100.0), Dirichlet(1.0), Dirichlet(0.1), ByClass(1))]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_the_shares_of_a_class_have_the_dirichlets_mean_and_variance():
    draws = []
    for seed in range(300):
        parts = Dirichlet(0.5, least=1)(Y, 4, torch.Generator().manual_seed(seed))
        draws += [float((Y[p] == 0).sum()) / 100 for p in parts]
    found = torch.tensor(draws)
    assert float(found.mean()) == pytest.approx(0.25, abs=1e-6)
    assert float(found.var()) == pytest.approx(0.25 * 0.75 / 3, rel=0.15)  # a0 = 2: p (1 - p) / (a0 + 1)


@pytest.mark.parametrize(
    ("text", "partition"),
    [
        ("iid", IID()),
        ("dirichlet:0.3", Dirichlet(0.3)),
        ("dirichlet", Dirichlet()),
        ("classes:2", ByClass(2)),
    ],
)
def test_names(text, partition):
    assert parse(text) == partition


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("dirichle:1", "did you mean 'dirichlet'"), ("dirichlet:x", "must be 'iid', 'dirichlet:ALPHA'"),
        ("dirichlet:0", "alpha is 0.0"), ("classes:0", "classes is 0"), ("iid:3", "must be 'iid'"),
        ("classes:1.5", "must be 'iid'"),
    ],
)  # fmt: skip
def test_names_that_are_none(text, sentence):
    with pytest.raises(InputError, match=sentence):
        parse(text)


@pytest.mark.parametrize(
    ("partition", "clients", "sentence"),
    [
        (IID(), 1001, "1001 clients are more than the 1000 samples"), (IID(), 0, "clients is 0"),
        (ByClass(5), 300, "need 1500 samples, but there are 1000"),
        (Dirichlet(0.01, least=50), 20, "no draw of 1000 .* take a larger alpha"),
    ],
)  # fmt: skip
def test_partitions_that_cannot_be(partition, clients, sentence):
    with pytest.raises(InputError, match=sentence):
        partition(Y, clients, torch.Generator())


def test_a_client_without_samples_is_an_error():
    def unfair(y, clients, generator):
        return [torch.arange(len(y)), torch.empty(0, dtype=torch.int64)]

    with pytest.raises(InputError, match="client 1 of 2 has no sample"):
        partitioned(Split(torch.zeros(1000, 1), Y), unfair, 2, torch.Generator())
