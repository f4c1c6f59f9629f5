"""Changing a topology in linear time: pick entries to drop, draw inactive positions, merge.

Each function computes in compiled code where that is installed and on the CPU, else in torch, with the same
meaning; only the random stream differs between the two.
"""

from __future__ import annotations

import torch
from torch import Tensor

from regraft import positions
from regraft.errors import InputError
from regraft.kernels import native
from regraft.weight import Rewiring


def _compiled(*tensors: Tensor) -> bool:
    return native.available() and all(t.device.type == "cpu" for t in tensors)


def smallest(values: Tensor, k: int, sign: int = 0) -> Tensor:
    """Places (int64, increasing) of the ``k`` values closest to zero; of equal ones the first.

    Args:
        values: float [n]; NaN counts as largest.
        k: how many; all there are, if there are fewer.
        sign: 0 looks at all values, -1 at the negative ones, 1 at the others: SET's rule takes both.

    >>> smallest(torch.tensor([0.5, -0.1, 0.2, -0.3]), 2).tolist()
    [1, 2]
    >>> smallest(torch.tensor([0.5, -0.1, 0.2, -0.3]), 1, sign=-1).tolist()
    [1]

    Raises:
        InputError: k is negative.
    """
    if k < 0:
        raise InputError(f"k is {k}, but must not be negative")
    values = values.detach()
    if _compiled(values) and values.dtype in (torch.float32, torch.float64):
        values = values.contiguous()
        out = torch.empty(min(k, values.numel()), dtype=torch.int64)
        found = native.module().smallest(
            native.is_float64(values.dtype),
            values.data_ptr(),
            values.numel(),
            sign,
            out.numel(),
            out.data_ptr(),
        )
        return out[:found]
    of_sign = torch.ones_like(values, dtype=torch.bool) if not sign else (values < 0) == (sign < 0)
    candidates = of_sign.nonzero().squeeze(1)
    order = torch.sort(values[candidates].abs(), stable=True).indices[:k]
    return candidates[order].sort().values


def random_inactive(index: Tensor, size: int, k: int, generator: torch.Generator | None = None) -> Tensor:
    """``k`` distinct positions in [0, size) that are not in ``index``, uniform over all such sets, sorted.

    >>> random_inactive(torch.tensor([0, 2]), 4, 2).tolist()
    [1, 3]

    Raises:
        InputError: ``index`` is no sorted list of positions, or fewer than k positions are inactive.
    """
    index = positions.check(index, size)
    if not 0 <= k <= size - index.numel() or not _compiled(index):
        return positions.sample_absent(index, size, k, generator)
    device = generator.device if generator is not None else torch.device("cpu")
    seed = int(torch.randint(2**62, (1,), generator=generator, device=device))
    index, out = index.contiguous(), torch.empty(k, dtype=torch.int64)
    native.module().random_inactive(index.data_ptr(), index.numel(), size, k, seed, out.data_ptr())
    return out


def exchange(index: Tensor, dropped: Tensor, grown: Tensor) -> tuple[Tensor, Rewiring]:
    """The topology ``index`` without the entries at the places ``dropped``, with the positions ``grown``.

    Args:
        index: positions [nnz], increasing.
        dropped: places in ``index`` (not positions), increasing.
        grown: positions, increasing, none of them among the survivors.

    Returns:
        the new positions, and where the survivors moved.

    >>> new, moved = exchange(torch.tensor([1, 4, 7]), torch.tensor([0]), torch.tensor([2, 9]))
    >>> new.tolist(), moved.kept_old.tolist(), moved.kept_new.tolist()
    ([2, 4, 7, 9], [1, 2], [1, 2])

    Raises:
        InputError: places or positions out of order or range, or a grown position that is still active.
    """
    dropped = positions.check(dropped, index.numel(), "dropped")
    grown = positions.check(grown, torch.iinfo(torch.int64).max, "grown")
    survivors = index.numel() - dropped.numel()
    if not _compiled(index, dropped, grown):
        return _exchange_in_torch(index, dropped, grown)
    index, dropped, grown = index.contiguous(), dropped.contiguous(), grown.contiguous()
    merged = torch.empty(survivors + grown.numel(), dtype=torch.int64)
    old, new = torch.empty(survivors, dtype=torch.int64), torch.empty(survivors, dtype=torch.int64)
    kept = native.module().merge(
        index.data_ptr(), index.numel(), dropped.data_ptr(), dropped.numel(), grown.data_ptr(), grown.numel(),
        merged.data_ptr(), old.data_ptr(), new.data_ptr(),
    )  # fmt: skip
    if kept < 0:
        raise InputError("a position to grow is still active: grow only inactive positions")
    return merged, Rewiring(old, new)


def _exchange_in_torch(index: Tensor, dropped: Tensor, grown: Tensor) -> tuple[Tensor, Rewiring]:
    stays = torch.ones(index.numel(), dtype=torch.bool, device=index.device)
    stays[dropped] = False
    old = stays.nonzero().squeeze(1)
    kept = index[old]
    if bool(positions.contains(kept, grown).any()):
        raise InputError("a position to grow is still active: grow only inactive positions")
    merged = torch.cat([kept, grown]).sort().values
    return merged, Rewiring(old, torch.searchsorted(merged, kept))
