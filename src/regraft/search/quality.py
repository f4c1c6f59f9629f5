"""How much of the best an approximate search found."""

from __future__ import annotations

import torch

from regraft import positions
from regraft.errors import InputError, MismatchError, unknown
from regraft.search.protocol import METRICS, Found, Metric

TOLERANCE = 1e-5  # of the k-th best key: two ways to sum up one product in float32 are so far apart


@torch.no_grad()
def recall(found: Found, best: Found, *, metric: Metric = "abs") -> float:
    """Share of the k best connections that a search found: positions p of ``found`` whose key is at
    least the k-th best, divided by k.

    Which of several equal products are among the k best is arbitrary, so that a position counts where it is
    one of ``best``, or where its product is no worse than the worst of theirs up to rounding (a relative
    1e-5). Distances are not told by products: with ``"l2"`` only the positions of ``best`` count.

    Args:
        found: what the search in question found for rows, columns, k and exclude; fewer than k positions are
            that much less.
        best: what ``search.exact`` finds for the same, with the same metric.
        metric: what both were asked for.

    Returns:
        in [0, 1]; 1 where ``best`` is empty, since nothing was missed.

    >>> g = torch.Generator().manual_seed(0)
    >>> rows, columns = torch.randn(50, 32, generator=g), torch.randn(60, 32, generator=g)
    >>> from regraft import search
    >>> best = search.exact(rows, columns, 100)
    >>> recall(best, best)
    1.0
    >>> recall(search.Lsh(bits=8, k_similar=0.2)(rows, columns, 100), best) < 1
    True

    Raises:
        InputError: an unknown metric; positions that are not increasing; products that are not finite.
        MismatchError: more positions found than there are in ``best``; positions and products that differ in
            number.
    """
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    for name, each in (("found", found), ("best", best)):
        _check(each, name)
    k = best.index.numel()
    if found.index.numel() > k:
        raise MismatchError(
            f"{found.index.numel()} positions were found, but best holds {k}: search for as many with both"
        )
    if k == 0:
        return 1.0
    hits = torch.isin(found.index, best.index.to(found.index.device))
    if metric != "l2":
        keys, wanted = (each.products.double() for each in (found, best))
        if metric == "abs":
            keys, wanted = keys.abs(), wanted.abs()
        worst = float(wanted.min())
        hits |= keys >= worst - TOLERANCE * abs(worst)
    return int(hits.sum()) / k


def _check(found: Found, name: str) -> None:
    positions.check(found.index, torch.iinfo(torch.int64).max, f"{name}.index")
    if found.products.shape != found.index.shape:
        raise MismatchError(
            f"{name} has {found.index.numel()} positions and products of shape "
            f"{tuple(found.products.shape)}: pass what a search returned"
        )
    if not bool(found.products.isfinite().all()):
        raise InputError(f"{name} holds products that are NaN or infinite: pass what a search returned")
