"""Every search: the same signature, the same promises; approximate ones find most of the best."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from tests.search.cases import assert_sound, inputs, recall, some_excluded

from regraft import search as package
from regraft.errors import InputError, MissingDependency
from regraft.search import (
    METRICS,
    SEARCHES,
    Bfloat16,
    Faiss,
    Hnswlib,
    Lsh,
    Metric,
    Nmslib,
    Search,
    Svd,
    by_name,
    compiled,
    lsh,
)
from regraft.search.protocol import door

# name: (search, the package it needs, least recall on an easy case)
TABLE: dict[str, tuple[Search, str | None, float]] = {
    "exact": (package.exact, None, 1.0),
    "bfloat16": (Bfloat16(), None, 0.95),
    "svd": (Svd(), None, 0.95),
    "faiss": (Faiss(k_similar=0.5), "faiss", 1.0),
    "faiss ivf": (Faiss("ivf", k_similar=0.5), "faiss", 0.8),
    "faiss hnsw": (Faiss("hnsw", k_similar=0.5), "faiss", 0.9),
    "hnswlib": (Hnswlib(k_similar=0.5), "hnswlib", 0.9),
    "nmslib": (Nmslib(k_similar=0.5), "nmslib", 0.9),
    "lsh": (Lsh(bits=2, k_similar=0.5), None, 0.7),
    "lsh weighted": (Lsh(bits=2, k_similar=0.5, weighted=True), None, 0.9),
}


def test_no_search_is_missing_from_the_table() -> None:
    kinds = {type(s) for s, _, _ in TABLE.values()}
    assert {type(s) for s in SEARCHES.values()} == kinds
    assert set(SEARCHES) <= set(TABLE)
    assert {
        getattr(package, n) for n in package.__all__ if isinstance(getattr(package, n), type)
    } >= kinds - {type(package.exact)}


def of(name: str) -> tuple[Search, float]:
    search, needs, least = TABLE[name]
    if needs is not None:
        pytest.importorskip(needs)
    return search, least


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("metric", METRICS)
def test_sound_and_near_the_best(name: str, metric: Metric) -> None:
    search, least = of(name)
    rows, columns = inputs("normal", 150, 200, 40)
    rows = rows @ torch.diag(0.8 ** torch.arange(40.0))  # nearly of low rank
    exclude, k = some_excluded(150, 200, 0.05), 150
    found = search(rows, columns, k, exclude, metric=metric)
    assert_sound(found, rows, columns, k, exclude, metric)
    assert recall(found, rows, columns, k, exclude, metric) >= least
    again = search(rows, columns, k, exclude, metric=metric)
    assert torch.equal(found.index, again.index)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("kind", ["zeros", "all zero", "duplicates", "relu"])
def test_sound_on_hard_input(name: str, kind: str) -> None:
    search, _ = of(name)
    for n_out, n_in, samples in ((50, 60, 8), (1, 1, 1), (3, 200, 1), (40, 5, 64)):
        rows, columns = inputs(kind, n_out, n_in, samples)
        exclude = some_excluded(n_out, n_in)
        for k in (0, 1, n_out * n_in - exclude.numel()):
            assert_sound(search(rows, columns, k, exclude), rows, columns, k, exclude, "abs")


@pytest.mark.parametrize("name", TABLE)
def test_refuses_what_no_search_can_use(name: str) -> None:
    search, _ = of(name)
    with pytest.raises(InputError, match="only 6 of 6 positions are inactive"):
        search(torch.ones(2, 3), torch.ones(3, 3), 7)
    with pytest.raises(InputError, match="hold NaN"):
        search(torch.full((2, 3), torch.nan), torch.ones(3, 3), 1)


@pytest.mark.parametrize("name", ["faiss", "hnswlib", "nmslib"])
def test_a_missing_extra_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency, match=rf"pip install 'regraft\[{name}\]'"):
        by_name(name)(torch.ones(2, 3), torch.ones(3, 3), 1)


@pytest.mark.parametrize("k_similar", [0, -0.1, 1.01, float("nan"), True, "half"])
@pytest.mark.parametrize("name", ["faiss", "hnswlib", "nmslib", "lsh"])
def test_k_similar_is_a_fraction(name: str, k_similar: float) -> None:
    with pytest.raises(InputError, match=r"k_similar is .* must be in \(0, 1\]"):
        by_name(name, k_similar)


def test_all_similar_is_exact() -> None:
    rows, columns = inputs("normal", 30, 40, 6)
    wanted = package.exact(rows, columns, 20)
    for search in (Lsh(k_similar=1), Svd(rank=30)):
        assert torch.equal(search(rows, columns, 20).index, wanted.index)


def test_more_bits_find_more() -> None:
    rows, columns = inputs("flat", 100, 300, 30)
    few, many = (
        recall(
            Lsh(bits, 0.1)(rows, columns, 300), rows, columns, 300, torch.empty(0, dtype=torch.int64), "abs"
        )
        for bits in (0.5, 16)
    )
    assert few + 0.1 < many


def test_few_neighbours_miss_what_lies_in_one_row() -> None:
    """Thesis 4, figure 3.1."""
    rows, columns = torch.eye(4)[:, :1] * 10 + 0.1, torch.arange(1.0, 11.0)[:, None]
    found = Lsh(k_similar=0.2, weighted=True)(rows, columns, 4)
    assert found.index.tolist() != package.exact(rows, columns, 4).index.tolist() == [6, 7, 8, 9]


@pytest.mark.parametrize("bad", [{"rank": 0}, {"oversample": -1}, {"candidates": 0.5}, {"rank": 2.5}])
def test_svd_refuses(bad: dict[str, int]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(bad))} is"):
        Svd(**bad)


def test_the_first_pass_is_rounded_where_the_machine_can() -> None:
    rows, columns = inputs("relu", 300, 400, 31)
    query = door(rows, columns, 200, None, "abs")
    if not compiled.has_bfloat16():
        pytest.skip("no AVX512-BF16 here")
    rough, fine = compiled.walk(query, rounded=True), compiled.walk(query)
    at = rough.index
    error = (rough.products - (rows @ columns.T).flatten()[at]).abs()
    assert 0 < float((error / (query.row_norms[at // 400] * query.column_norms[at % 400])).max()) < 0.008
    assert torch.isin(fine.index, rough.index).double().mean() > 0.9
    assert torch.equal(Bfloat16(candidates=2)(rows, columns, 200).index, fine.index)


def test_without_bfloat16_the_search_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "has_bfloat16", lambda: False)
    rows, columns = inputs("normal", 30, 40, 9)
    found, wanted = Bfloat16()(rows, columns, 50), package.exact(rows, columns, 50)
    assert torch.equal(found.index, wanted.index)
    assert torch.equal(found.products, wanted.products)


def test_bad_options_are_named() -> None:
    with pytest.raises(InputError, match="candidates is 0"):
        Bfloat16(candidates=0.9)
    with pytest.raises(InputError, match="unknown kind of faiss index 'tree'"):
        Faiss("tree")  # type: ignore[arg-type]
    for make in (
        lambda: Faiss(probes=0),
        lambda: Faiss(links=0),
        lambda: Hnswlib(links=0),
        lambda: Nmslib(effort=0),
    ):
        with pytest.raises(InputError, match="must be a positive integer"):
            make()
    with pytest.raises(InputError, match="bits is 0"):
        Lsh(bits=0)
    with pytest.raises(InputError, match="unknown search 'exat'"):
        by_name("exat")
    with pytest.raises(InputError, match="leave k_similar out"):
        by_name("svd", 0.5)


def test_products_at_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    for samples in (1, 7, 100, 1000):
        rows, columns = inputs("normal", 20, 30, samples)
        index = some_excluded(20, 30, 0.7)
        query = door(rows, columns, 1, None, "abs")
        wanted = (rows.double() @ columns.double().T).flatten()[index].float()
        assert torch.allclose(compiled.products_at(query, index), wanted, atol=1e-4)
        with monkeypatch.context() as patch:
            patch.setattr(compiled, "_module", None)
            assert torch.allclose(compiled.products_at(query, index), wanted, atol=1e-4)


def test_bits_are_counted_without_numpy_2_too(monkeypatch: pytest.MonkeyPatch) -> None:
    words = np.array([[0, 1], [2**64 - 1, 5]], np.uint64)
    for _ in range(2):
        assert lsh._ones(words).tolist() == [[0, 1], [64, 2]]
        monkeypatch.delattr(np, "bitwise_count", raising=False)
