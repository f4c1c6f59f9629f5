"""The norm-ordered walk in compiled code."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from regraft.kernels import native
from regraft.search.best import fill
from regraft.search.protocol import METRICS, Found, Metric, Query


def _load() -> ModuleType | None:
    try:
        from regraft.kernels import _search  # type: ignore[attr-defined, unused-ignore]
    except ImportError:
        return None
    module: ModuleType = _search
    return module


_module = _load()
BFLOAT16 = 3  # the level of the walk over rounded numbers
ROUNDING = 0.008  # of a product of such numbers, relative to the product of the norms
SMALL = 1 << 18  # positions for each thread below which one more does not pay


def fits(query: Query) -> bool:
    """Whether the compiled walk is installed and can see these tensors."""
    most = max(query.rows.shape[0], query.columns.shape[0])
    return _module is not None and native.available() and query.rows.device.type == "cpu" and most < 1 << 32


class _Refused(Exception):
    """Numbers that are not finite or whose products may not be, or excluded positions out of order."""


def direct(rows: Tensor, columns: Tensor, k: int, exclude: Tensor | None, metric: Metric) -> Found | None:
    """The k best of an input that has not come through the door, where the compiled walk can see to it
    alone; None for any other."""
    if exclude is None:
        exclude = torch.empty(0, dtype=torch.int64)
    if (
        metric not in METRICS
        or type(k) is not int
        or rows.ndim != 2
        or columns.ndim != 2
        or exclude.ndim != 1
    ):
        return None
    plain = rows.dtype == columns.dtype == torch.float32 and exclude.dtype == torch.int64
    here = rows.device == columns.device == exclude.device == torch.device("cpu")
    samples, free = rows.shape[1], rows.shape[0] * columns.shape[0] - exclude.numel()
    query = Query(rows.detach(), columns.detach(), k, exclude, metric)
    if not (plain and here and 0 < samples == columns.shape[1] and 0 < k <= free and fits(query)):
        return None
    try:
        return walk(query)
    except _Refused:
        return None


def has_bfloat16() -> bool:
    """Whether this machine multiplies bfloat16 numbers, and may."""
    return _module is not None and native.isa() == "avx512" and bool(_module.has_bfloat16())


def walk(query: Query, *, rounded: bool = False) -> Found:
    """The k best; the same whatever the number of threads (``regraft.kernels.set_threads``).

    Args:
        rounded: of rows and columns rounded to bfloat16; only where :func:`has_bfloat16` holds.
    """
    if query.k == 0:
        return Found(torch.empty(0, dtype=torch.int64), torch.empty(0))
    found = _found(query, query.metric != "l2", rounded)
    if query.metric == "l2":
        return Found(found.index, products_at(query, found.index))
    if query.metric == "ip" and found.index.numel() < query.k:  # zero and negative products are needed too
        return _found(query, False, rounded)
    return fill(found, query.k, query.exclude)


def _found(query: Query, above_zero: bool, rounded: bool) -> Found:
    assert _module is not None
    rows, columns, k = query.rows, query.columns, query.k
    exclude = query.exclude.contiguous()
    index, values = torch.empty(k, dtype=torch.int64), torch.empty(k)
    found = _module.search(
        BFLOAT16 if rounded else native.ISAS.index(native.isa() or "baseline"),
        max(1, min(native.get_threads(), rows.shape[0] * columns.shape[0] // SMALL)),
        METRICS.index(query.metric),
        above_zero,
        query.slack + (ROUNDING if rounded else 0.0),
        rows.shape[1],
        rows.data_ptr(), rows.shape[0], *rows.stride(),
        columns.data_ptr(), columns.shape[0], *columns.stride(),
        exclude.data_ptr(), exclude.numel(),
        k, index.data_ptr(), values.data_ptr(),
    )  # fmt: skip
    if found < 0:
        raise _Refused
    return Found(index[:found], values[:found])


def products_at(query: Query, index: Tensor) -> Tensor:
    """Inner products at positions [n], in float32; on the device of ``index``."""
    products = torch.empty(index.numel(), device=index.device)
    if fits(query) and index.device.type == "cpu":
        assert _module is not None
        rows, columns = query.rows.contiguous(), query.columns.contiguous()
        _module.products(
            native.ISAS.index(native.isa() or "baseline"),
            max(1, min(native.get_threads(), index.numel() // 4096)),
            rows.data_ptr(),
            columns.data_ptr(),
            query.width,
            rows.shape[1],
            index.data_ptr(),
            index.numel(),
            products.data_ptr(),
        )
        return products
    step = max(1, (1 << 20) // query.rows.shape[1])
    for start in range(0, index.numel(), step):
        at = index[start : start + step].to(query.rows.device)
        pairs = query.rows[at // query.width] * query.columns[at % query.width]
        products[start : start + step] = pairs.sum(1).to(index.device)
    return products
