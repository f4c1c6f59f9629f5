"""The hot part of evolution: move entries to their new places. Vectorised, O(nnz), no dense array.

All evolution and all changes of topology go through ``swap`` and ``move``, so that a compiled version can
take their place here and nowhere else.
"""

from __future__ import annotations

import torch
from torch import Tensor

from regraft.weight import Rewiring, SparseWeight


def complement(entries: Tensor, n: int) -> Tensor:
    """The increasing entries of [0, n) that are not in ``entries``.

    >>> complement(torch.tensor([1, 2]), 5).tolist()
    [0, 3, 4]
    """
    kept = torch.ones(n, dtype=torch.bool, device=entries.device)
    kept[entries] = False
    return kept.nonzero().squeeze(1)


@torch.no_grad()
def swap(weight: SparseWeight, kept: Tensor, index: Tensor, values: Tensor) -> Rewiring:
    """Keep the entries ``kept`` of a weight and add new connections; every other entry goes.

    A position that is both dropped and added starts with its new value: it is a new connection.

    Args:
        kept: increasing entries of ``weight.values`` [m] that stay, bit for bit.
        index: increasing positions [k] of the new connections, none of them at a kept entry.
        values: their values [k].

    >>> w = SparseWeight((1, 5), torch.tensor([0, 2, 4]), torch.tensor([1.0, 2.0, 3.0]))
    >>> swap(w, torch.tensor([0, 2]), torch.tensor([2]), torch.tensor([9.0])).kept_new.tolist()
    [0, 2]
    >>> w.index.tolist(), w.values.tolist()
    ([0, 2, 4], [1.0, 9.0, 3.0])
    """
    survivors = weight.index[kept]
    # both lists are sorted, so an element's new place is its own rank plus its rank in the other list
    grown_new = torch.searchsorted(survivors, index)
    grown_new += torch.arange(index.numel(), device=index.device)
    n = survivors.numel() + index.numel()
    kept_new = complement(grown_new, n)
    merged = survivors.new_empty(n)
    merged[kept_new], merged[grown_new] = survivors, index
    weight.replace(merged, move(weight.values, kept, kept_new, n, fresh=values))
    return Rewiring(kept, kept_new)


@torch.no_grad()
def move(vector: Tensor, kept_old: Tensor, kept_new: Tensor, n: int, *, fresh: Tensor | float) -> Tensor:
    """A new vector [n]: entry ``kept_new[i]`` is the old ``kept_old[i]``, every other entry is ``fresh`` (a
    number, or a vector in the order of the other entries).

    >>> move(torch.tensor([1.0, 2.0]), torch.tensor([1]), torch.tensor([0]), 3, fresh=0.5).tolist()
    [2.0, 0.5, 0.5]
    """
    if isinstance(fresh, Tensor):
        new = torch.empty(n, dtype=vector.dtype, device=vector.device)
        new[complement(kept_new, n).to(vector.device)] = fresh.to(vector)
    else:
        new = torch.full((n,), fresh, dtype=vector.dtype, device=vector.device)
    # an optimizer may keep its state on another device than the weight
    new[kept_new.to(vector.device)] = vector.detach()[kept_old.to(vector.device)]
    return new
