"""Inputs for searches, easy and hard ones, and the dense product that they are compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from regraft.search import Found, Metric

KINDS = ("normal", "flat", "relu", "zeros", "all zero", "duplicates", "integers", "tiny")


def inputs(kind: str, n_out: int, n_in: int, samples: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    rows, columns = torch.randn(n_out, samples, generator=g), torch.randn(n_in, samples, generator=g)
    if kind == "flat":  # no norm tells anything
        return rows / rows.norm(dim=1, keepdim=True), columns / columns.norm(dim=1, keepdim=True)
    if kind == "relu":
        scale = torch.rand(n_in, 1, generator=g) ** 4
        return rows * torch.rand(n_out, 1, generator=g) ** 4, (columns - 1).relu() * scale
    if kind == "zeros":
        rows[::2], columns[::3] = 0, 0
    if kind == "all zero":
        rows[:] = 0
    if kind == "duplicates":
        return rows[torch.arange(n_out) // 3], columns[torch.arange(n_in) // 4]
    if kind == "integers":  # many equal products
        return rows.round(), columns.round()
    if kind == "tiny":  # squares are lost in float32
        return rows * 1e-18, columns * 1e-17
    return rows, columns


def keys(rows: Tensor, columns: Tensor, metric: Metric) -> Tensor:
    """What positions are ranked by [n_out * n_in], in float64."""
    r, c = rows.double(), columns.double()
    if metric == "l2":
        distances = torch.cdist(r, c, compute_mode="donot_use_mm_for_euclid_dist")
        return -distances.square().flatten()
    products = (r @ c.T).flatten()
    return products.abs() if metric == "abs" else products


def rounding(rows: Tensor, columns: Tensor, metric: Metric) -> float:
    """How far a float32 key may be off."""
    row, column = (float(x.double().norm(dim=1).max()) if len(x) else 0.0 for x in (rows, columns))
    return 2e-6 * ((row + column) ** 2 if metric == "l2" else row * column)


def assert_sound(
    found: Found, rows: Tensor, columns: Tensor, k: int, exclude: Tensor, metric: Metric
) -> None:
    """k increasing positions outside ``exclude`` with their products."""
    index = found.index
    assert index.dtype == torch.int64
    assert found.products.dtype == torch.float32
    assert index.numel() == k == found.products.numel()
    assert bool((index[1:] > index[:-1]).all())
    assert not torch.isin(index, exclude).any()
    products = (rows.double() @ columns.double().T).flatten()[index]
    assert torch.allclose(
        found.products.double(), products, rtol=0, atol=rounding(rows, columns, "ip") + 1e-45
    )


def assert_best(found: Found, rows: Tensor, columns: Tensor, k: int, exclude: Tensor, metric: Metric) -> None:
    """Sound, and as good as the k best of all products; only what rounding sets apart may be exchanged."""
    assert_sound(found, rows, columns, k, exclude, metric)
    every = keys(rows, columns, metric)
    got = every[found.index].sort(descending=True).values
    every[exclude] = -torch.inf
    best = every.sort(descending=True).values[:k]
    assert torch.allclose(got, best, rtol=0, atol=2 * rounding(rows, columns, metric))


def recall(found: Found, rows: Tensor, columns: Tensor, k: int, exclude: Tensor, metric: Metric) -> float:
    """Share of the true k best that was found."""
    every = keys(rows, columns, metric)
    every[exclude] = -torch.inf
    return float(torch.isin(found.index, every.topk(k).indices).double().mean())


def some_excluded(n_out: int, n_in: int, share: float = 0.2, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    size = n_out * n_in
    return torch.randperm(size, generator=g)[: int(share * size)].sort().values
