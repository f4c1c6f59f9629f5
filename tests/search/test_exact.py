"""The exact search, in torch and compiled, against a dense product in float64 and a full sort."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.search.cases import KINDS, assert_best, inputs, keys, some_excluded
from torch import Tensor

from regraft.errors import InputError, MismatchError
from regraft.kernels import native
from regraft.search import METRICS, Found, Metric, compiled, exact, walk
from regraft.search.protocol import door

SIZES = ((1, 1, 1, 1.0), (7, 300, 5, 0.1), (130, 70, 33, 0.02), (90, 120, 1, 0.9), (257, 1100, 17, 0.05))


def test_compiled_search_is_there_where_the_kernels_are() -> None:
    assert compiled.fits(door(torch.ones(1, 1), torch.ones(1, 1), 1, None, "abs")) == native.available()


@pytest.fixture(params=["torch", *native.ISAS])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way to compute that this machine has."""
    if request.param == "torch":
        monkeypatch.setattr(compiled, "_module", None)
    elif not native.available() or native.ISAS.index(request.param) > native.ISAS.index(native.isa() or ""):
        pytest.skip(f"no compiled kernels for {request.param} here")
    else:
        monkeypatch.setattr(native, "_isa", request.param)
    return str(request.param)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_best_of_the_dense_product(way: str, kind: str, metric: Metric) -> None:
    for n_out, n_in, samples, part in SIZES:
        rows, columns = inputs(kind, n_out, n_in, samples, seed=n_out)
        exclude = some_excluded(n_out, n_in)
        k = int(part * (n_out * n_in - exclude.numel()))
        found = exact(rows, columns, k, exclude, metric=metric)
        assert_best(found, rows, columns, k, exclude, metric)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(1, 9),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(METRICS),
    st.integers(0, 1000),
)
def test_ties_go_to_the_lowest_positions(
    n_out: int, n_in: int, samples: int, part: float, excluded: float, metric: Metric, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    rows = torch.randint(-2, 3, (n_out, samples), generator=g).float()
    columns = torch.randint(-2, 3, (n_in, samples), generator=g).float()
    exclude = some_excluded(n_out, n_in, excluded, seed)
    query = door(rows, columns, int(part * (n_out * n_in - exclude.numel())), exclude, metric)
    every = keys(rows, columns, metric).round()  # distances go through a root
    every[exclude] = -torch.inf
    wanted = every.sort(descending=True, stable=True).indices[: query.k].sort().values
    found = exact(rows, columns, query.k, exclude, metric=metric)
    in_torch = walk.walk(query)
    if metric != "l2":  # the squares of norms are rounded
        assert torch.equal(found.index, wanted)
        assert torch.equal(in_torch.index, wanted)
    for result in (found, in_torch):
        assert_best(result, rows, columns, query.k, exclude, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_threads_do_not_change_the_result(metric: Metric) -> None:
    rows, columns = inputs("relu", 1500, 1300, 20)
    rows, columns = torch.cat([rows, rows[:500]]), torch.cat([columns, columns[:600]])
    exclude = some_excluded(2000, 1900, 0.05)
    before, found = native.get_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            native.set_threads(threads)
            found += [exact(rows, columns, k, exclude, metric=metric) for k in (1, 5000)]
    finally:
        native.set_threads(before)
    for i in range(2, len(found)):
        assert torch.equal(found[i].index, found[i - 2].index)
        assert torch.equal(found[i].products, found[i - 2].products)


def test_every_layout_of_the_input_gives_the_same() -> None:
    rows, columns = inputs("relu", 60, 50, 12)
    wanted = exact(rows, columns, 100)
    batch_major = exact(rows.T.contiguous().T, columns.T.contiguous().T, 100)
    apart = exact(rows.repeat_interleave(2, 1)[:, ::2], columns.repeat_interleave(3, 0)[::3], 100)
    for found in (batch_major, apart, exact(rows.double(), columns.double(), 100)):
        assert torch.equal(found.index, wanted.index)
        assert torch.equal(found.products, wanted.products)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("samples", [32, 33, 130, 1100])
def test_tiles_left_before_the_last_sample(way: str, samples: int, metric: Metric) -> None:
    """Few samples hold most of the gradient, in any place: what is left after them is still counted."""
    g = torch.Generator().manual_seed(samples)
    energy = torch.rand(samples, generator=g).pow(9)
    rows = torch.randn(70, samples, generator=g) * energy
    columns = torch.randn(90, samples, generator=g).relu() * torch.rand(90, 1, generator=g)
    exclude = some_excluded(70, 90)
    for k in (5, 400):
        assert_best(exact(rows, columns, k, exclude, metric=metric), rows, columns, k, exclude, metric)


def test_minibatches_side_by_side_are_summed() -> None:
    batches = [inputs("normal", 40, 30, 8, seed) for seed in range(5)]
    summed = sum(r @ c.T for r, c in batches)
    assert isinstance(summed, Tensor)
    found = exact(torch.cat([r for r, _ in batches], 1), torch.cat([c for _, c in batches], 1), 25)
    assert torch.equal(found.index, summed.abs().flatten().topk(25).indices.sort().values)
    assert torch.allclose(found.products, summed.flatten()[found.index], rtol=1e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_all_excluded_but_k(way: str, metric: Metric) -> None:
    rows, columns = inputs("normal", 40, 90, 3)
    left = torch.tensor([0, 17, 1234, 3599])
    exclude = torch.ones(3600, dtype=torch.bool).index_fill(0, left, False).nonzero().squeeze(1)
    assert torch.equal(exact(rows, columns, 4, exclude, metric=metric).index, left)
    assert exact(rows, columns, 0, exclude, metric=metric).index.numel() == 0


def test_a_layer_whose_products_would_fill_the_memory(way: str) -> None:
    """20,000 x 20,000 products take 1.6 GB; 65,536 x 65,536 take 17 and their positions 33 bits."""
    for n in (20_000, 65_536):
        rows, columns = inputs("relu", n, n, 2)
        rows[30:-30] *= 1e-3
        columns[50:-50] *= 1e-3
        rows[-1], columns[-1] = 7.0, 7.0
        found = exact(rows, columns, 50, torch.tensor([0, n * n - 2]))
        assert found.index[-1] == n * n - 1
        near = torch.cat([torch.arange(50), torch.arange(n - 50, n)])
        row, column = (torch.searchsorted(near, at) for at in (found.index // n, found.index % n))
        small = Found(row * 100 + column, found.products)
        assert_best(small, rows[near], columns[near], 50, torch.tensor([0, 9998]), "abs")


def test_a_batch_of_one_is_enough() -> None:
    found = exact(torch.tensor([[1.0], [-3.0]]), torch.tensor([[2.0], [0.0]]), 3)
    assert found.index.tolist() == [0, 1, 2]
    assert found.products.tolist() == [2.0, 0.0, -6.0]


R, C = torch.ones(2, 3), torch.ones(4, 3)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: exact(R, C, 9), InputError, "cannot find 9 connections: only 8 of 8 positions are inactive"),
        (lambda: exact(R, C, 7, torch.tensor([1, 5])), InputError, "only 6 of 8"),
        (lambda: exact(R, C, -1), InputError, "k is -1"),
        (lambda: exact(R, C, 2.5), InputError, "k is 2.5"),  # type: ignore[arg-type]
        (lambda: exact(R, C[:, :2], 1), MismatchError, "rows hold 3 samples and columns 2"),
        (lambda: exact(R[:, :0], C[:, :0], 1), InputError, "no samples"),
        (lambda: exact(R[0], C, 1), InputError, "rows have shape"),
        (lambda: exact(R, C.long(), 1), InputError, "columns have shape"),
        (lambda: exact(R / 0, C, 1), InputError, "rows hold NaN or infinite"),
        (lambda: exact(R, C * torch.nan, 1), InputError, "columns hold NaN or infinite"),
        (lambda: exact(R * 1e30, C, 1), InputError, "beyond float32"),
        (lambda: exact(R * 1e15, C * 1e20, 1), InputError, "beyond float32"),
        (lambda: exact(R, C, 1, torch.tensor([2, 1])), InputError, "not strictly increasing"),
        (lambda: exact(R, C, 1, torch.tensor([8])), InputError, "position 8"),
        (lambda: exact(R, C, 1, metric="cosine"), InputError, "unknown metric 'cosine'"),  # type: ignore[arg-type]
    ],
)
def test_bad_input_ends_in_one_sentence(call: object, error: type[Exception], words: str) -> None:
    assert callable(call)
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize(
    ("metric", "seeds"), [("abs", (851, 1029)), ("ip", (920,)), ("l2", (189, 260, 530, 711, 992, 1230))]
)
def test_the_walk_in_torch_keeps_a_product_that_two_tiles_round_differently(
    metric: Metric, seeds: tuple[int, ...]
) -> None:
    """The k-th best of the first tile was missed where the larger tile around it gave a smaller last bit."""
    for seed in seeds:
        g = torch.Generator().manual_seed(seed)
        rows, columns = torch.randn(12, 60, generator=g), torch.randn(8, 60, generator=g)
        none = torch.empty(0, dtype=torch.int64)
        assert_best(walk.walk(door(rows, columns, 11, None, metric)), rows, columns, 11, none, metric)
