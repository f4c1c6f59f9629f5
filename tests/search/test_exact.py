"""The exact search against a dense product in float64 and a full sort."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from regraft.search import METRICS, Found, Search, exact
from regraft.search.protocol import Metric, door
from regraft.search.walk import walk


def dense_keys(rows: Tensor, columns: Tensor, metric: Metric) -> Tensor:
    r, c = rows.double(), columns.double()
    products = r @ c.T
    if metric == "abs":
        return products.abs()
    return (
        products
        if metric == "ip"
        else -torch.cdist(r, c, compute_mode="donot_use_mm_for_euclid_dist").square()
    )


def assert_best(found: Found, rows: Tensor, columns: Tensor, k: int, exclude: Tensor, metric: Metric) -> None:
    keys = dense_keys(rows, columns, metric).flatten()
    keys[exclude] = -torch.inf
    index = found.index
    assert index.dtype == torch.int64
    assert index.numel() == k == found.products.numel()
    assert bool((index[1:] > index[:-1]).all())
    assert not torch.isin(index, exclude).any()
    scale = float(rows.double().norm(dim=1).max() * columns.double().norm(dim=1).max()) if k else 0.0
    if metric == "l2" and k:
        scale = float((rows.double().norm(dim=1).max() + columns.double().norm(dim=1).max()) ** 2)
    best = keys.sort(descending=True).values[:k]
    # the k-th best may be exchanged for one that only rounding sets apart
    assert torch.allclose(keys[index].sort(descending=True).values, best, rtol=0, atol=1e-5 * scale)
    products = (rows.double() @ columns.double().T).flatten()[index]
    assert torch.allclose(found.products.double(), products, rtol=0, atol=1e-5 * max(scale, 1e-30))


def inputs(kind: str, n_out: int, n_in: int, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    rows, columns = torch.randn(n_out, samples, generator=g), torch.randn(n_in, samples, generator=g)
    if kind == "flat":
        return rows / rows.norm(dim=1, keepdim=True), columns / columns.norm(dim=1, keepdim=True)
    if kind == "relu":
        scale = torch.rand(n_in, 1, generator=g) ** 4
        return rows * torch.rand(n_out, 1, generator=g) ** 4, columns.clamp(min=1.0) * scale - scale
    if kind == "zeros":
        rows[::2], columns[::3] = 0, 0
        return rows, columns
    if kind == "all zero":
        return rows * 0, columns
    if kind == "duplicates":
        return rows[torch.arange(n_out) // 3], columns[torch.arange(n_in) // 4]
    if kind == "integers":
        return rows.round(), columns.round()
    return rows, columns


SIZES = ((1, 1, 1, 1.0), (7, 300, 5, 0.1), (130, 70, 33, 0.02), (90, 120, 1, 0.9))
KINDS = ("normal", "flat", "relu", "zeros", "all zero", "duplicates", "integers")


def in_torch(
    rows: Tensor, columns: Tensor, k: int, exclude: Tensor | None = None, *, metric: Metric = "abs"
) -> Found:
    return walk(door(rows, columns, k, exclude, metric))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("search", [exact, in_torch])
def test_best_of_dense(kind: str, metric: Metric, search: Search) -> None:
    for n_out, n_in, samples, part in (
        (1, 1, 1, 1.0),
        (7, 300, 5, 0.1),
        (130, 70, 33, 0.02),
        (90, 120, 1, 0.9),
    ):
        rows, columns = inputs(kind, n_out, n_in, samples, seed=n_out)
        exclude = torch.randperm(n_out * n_in)[: n_out * n_in // 5].sort().values
        k = int(part * (n_out * n_in - exclude.numel()))
        assert_best(search(rows, columns, k, exclude, metric=metric), rows, columns, k, exclude, metric)
