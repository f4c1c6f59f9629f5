"""The exact search: the default."""

from __future__ import annotations

import torch
from torch import Tensor

from regraft.search import compiled, walk
from regraft.search.protocol import Found, Metric, door


@torch.no_grad()
def exact(
    rows: Tensor, columns: Tensor, k: int, exclude: Tensor | None = None, *, metric: Metric = "abs"
) -> Found:
    """The k positions outside ``exclude`` with the largest metric, exactly, never storing all products.

    By Cauchy and Schwarz ``|<r_i, c_j>| <= |r_i| |c_j|``. Rows and columns are ordered by their norms; tiles
    of products are computed from the largest bound on and compared with the k-th best so far, which rises;
    a tile whose bound lies below it is never computed (for ``l2``: ``|r_i - c_j| >= ||r_i| - |c_j||``).
    Where norms are uneven, as behind ReLU, that is most of them; where all are equal every tile is computed
    once. Memory is O(k) beside one copy of the input.

    Args:
        rows: [n_out, B], for example the loss's gradient at a layer's outputs; computed in float32.
        columns: [n_in, B], for example the layer's inputs.
        k: how many positions.
        exclude: increasing positions that are not wanted, for example the active ones.
        metric: ``"abs"``, ``"ip"`` or ``"l2"``, as in ``Search``.

    Returns:
        exactly k positions. Of equal keys the lowest positions are taken, whatever the number of threads.

    >>> rows, columns = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 1.0], [0.0, -4.0]])
    >>> found = exact(rows, columns, 2, torch.tensor([0]))
    >>> found.index.tolist(), found.products.tolist()
    ([2, 3], [2.0, -8.0])

    Raises:
        InputError: more positions asked for than are inactive; no samples; numbers that are NaN or infinite;
            an unknown metric; positions that are not increasing.
        MismatchError: rows and columns with different numbers of samples.
    """
    found = compiled.direct(rows, columns, k, exclude, metric)
    if found is not None:
        return found
    query = door(rows, columns, k, exclude, metric)
    return compiled.walk(query) if compiled.fits(query) else walk.walk(query)
