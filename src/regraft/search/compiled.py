"""The norm-ordered walk in compiled code."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from regraft.kernels import native
from regraft.search.best import fill
from regraft.search.protocol import METRICS, Found, Query


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


def has_bfloat16() -> bool:
    """Whether this machine multiplies bfloat16 numbers, and may."""
    return _module is not None and native.isa() == "avx512" and bool(_module.has_bfloat16())


def walk(query: Query, *, rounded: bool = False) -> Found:
    """The k best; the same whatever the number of threads (``regraft.kernels.set_threads``).

    Args:
        rounded: of rows and columns rounded to bfloat16; only where :func:`has_bfloat16` holds.
    """
    if query.k == 0:
        return _found(query, True, rounded)
    if query.metric == "l2":
        found = _found(query, False, rounded)
        return Found(found.index, products_at(query, found.index))
    found = _found(query, True, rounded)
    if query.metric == "ip" and found.index.numel() < query.k:  # zero and negative products are needed too
        return _found(query, False, rounded)
    return fill(found, query.k, query.exclude)


def _found(query: Query, above_zero: bool, rounded: bool) -> Found:
    k, samples = query.k, query.rows.shape[1]
    index, values = torch.empty(k, dtype=torch.int64), torch.empty(k)
    if k == 0:
        return Found(index, values)
    assert _module is not None
    rows, columns = _side(query.rows, query.row_norms, query), _side(query.columns, query.column_norms, query)
    exclude = query.exclude.contiguous()
    size = query.rows.shape[0] * query.columns.shape[0]
    found = _module.search(
        BFLOAT16 if rounded else native.ISAS.index(native.isa() or "baseline"),
        max(1, min(native.get_threads(), size // SMALL)),
        METRICS.index(query.metric),
        above_zero,
        query.slack + (ROUNDING if rounded else 0.0),
        samples,
        rows[0].data_ptr(),
        columns[0].data_ptr(),
        exclude.data_ptr(),
        exclude.numel(),
        k,
        index.data_ptr(),
        values.data_ptr(),
    )
    return Found(index[:found], values[:found])


def _side(matrix: Tensor, norms: Tensor, query: Query) -> tuple[Tensor, ...]:
    """What the compiled code reads of a matrix, and the tensors that must live as long."""
    norms, order = norms.sort(descending=query.metric != "l2")
    where = [matrix.data_ptr(), matrix.shape[0], matrix.stride(0), matrix.stride(1)]
    return torch.tensor([*where, order.data_ptr(), norms.data_ptr()]), order, norms


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
