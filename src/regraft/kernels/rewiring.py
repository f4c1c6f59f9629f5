"""Changing a topology in linear time: pick entries to drop, draw inactive positions, merge, move values.

``smallest`` and ``exchange`` compute in compiled code where that is installed and on the CPU, else in torch,
with the same meaning. So does ``random_inactive``, always on the CPU; its random stream differs between the
two.
"""

from __future__ import annotations

import torch
from torch import Tensor

from regraft import positions
from regraft.errors import InputError
from regraft.kernels import native
from regraft.weight import Rewiring, SparseWeight

LARGEST = torch.iinfo(torch.int64).max


def _compiled(*tensors: Tensor) -> bool:
    return native.available() and all(t.device.type == "cpu" for t in tensors)


def smallest(values: Tensor, k: int, sign: int = 0, generator: torch.Generator | None = None) -> Tensor:
    """Places (int64, increasing) of the ``k`` values closest to zero.

    Args:
        values: float [n]; NaN counts as largest.
        k: how many; all there are, if there are fewer.
        sign: 0 looks at all values, -1 at the negative ones, 1 at the others: SET's rule takes both.
        generator: decides among equal values, each choice equally likely; without one the first are taken.

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
    if sign:
        side = ((values < 0) == (sign < 0)).nonzero().squeeze(1)
        return side[smallest(values[side], k, generator=generator)]
    k = min(k, values.numel())
    if _compiled(values) and values.dtype in (torch.float32, torch.float64):
        values = values.contiguous()
        chosen = torch.empty(k, dtype=torch.int64)
        tied = native.module().smallest(
            native.is_float64(values.dtype), values.data_ptr(), values.numel(), k, chosen.data_ptr()
        )
    else:
        chosen = torch.sort(values.abs(), stable=True).indices[:k].sort().values
        tied = values.numel() - k
    return _redraw_ties(values.abs(), chosen, generator) if tied and generator is not None else chosen


def _redraw_ties(magnitude: Tensor, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """``chosen`` with those that equal the largest of them drawn anew among all that do."""
    if not chosen.numel():
        return chosen
    taken = magnitude[chosen]
    limit = taken.max()
    last = taken == limit
    equal, ties = magnitude == limit, int(last.sum())
    if int(equal.sum()) <= ties:
        return chosen
    tied = equal.nonzero().squeeze(1)
    drawn = tied[positions.sample_ranks(tied.numel(), ties, generator).to(tied.device)]
    return torch.cat([chosen[~last], drawn]).sort().values


def random_inactive(index: Tensor, size: int, k: int, generator: torch.Generator | None = None) -> Tensor:
    """``k`` distinct positions in [0, size) that are not in ``index``, uniform over all such sets, sorted.

    >>> random_inactive(torch.tensor([0, 2]), 4, 2).tolist()
    [1, 3]

    Raises:
        InputError: ``index`` is no sorted list of positions, or fewer than k positions are inactive.
    """
    index = positions.check(index, size)
    if not 0 <= k <= size - index.numel() or not native.available():
        return positions.sample_absent(index, size, k, generator)
    device = generator.device if generator is not None else torch.device("cpu")
    seed = int(torch.randint(2**62, (1,), generator=generator, device=device))
    # positions on another device are copied over, so that one seed grows the same connections on each
    here, out = index.cpu().contiguous(), torch.empty(k, dtype=torch.int64)
    native.module().random_inactive(here.data_ptr(), here.numel(), size, k, seed, out.data_ptr())
    return out.to(index.device)


def parted(index: Tensor, places: Tensor, name: str = "places") -> tuple[Tensor, Tensor]:
    """The positions ``index`` without those at ``places`` (increasing), and those.

    >>> kept, gone = parted(torch.tensor([1, 4, 7]), torch.tensor([1]))
    >>> kept.tolist(), gone.tolist()
    ([1, 7], [4])

    Raises:
        InputError: places out of order or range.
    """
    _require_vector(index, "index")
    n, k = index.numel(), places.numel()
    if _compiled(index, places) and places.dtype == torch.int64 and places.ndim == 1 and k <= n:
        index, places = index.contiguous(), places.contiguous()
        kept, gone = torch.empty(n - k, dtype=torch.int64), torch.empty(k, dtype=torch.int64)
        to = kept.data_ptr(), gone.data_ptr()
        if native.module().part(index.data_ptr(), n, places.data_ptr(), k, *to):
            return kept, gone
    places = positions.check(places, n, name)
    return index.index_select(0, complement(places, n)), index.index_select(0, places)


def _require_vector(index: Tensor, name: str) -> None:
    """Refuse what compiled code would read as something else."""
    if index.ndim != 1 or index.dtype != torch.int64:
        raise InputError(
            f"{name} has positions of shape {tuple(index.shape)} and type {index.dtype}, but must have an "
            "int64 vector of them"
        )


def complement(entries: Tensor, n: int) -> Tensor:
    """The increasing entries of [0, n) that are not in ``entries``.

    >>> complement(torch.tensor([1, 2]), 5).tolist()
    [0, 3, 4]
    """
    kept = torch.ones(n, dtype=torch.bool, device=entries.device)
    kept[entries] = False
    return kept.nonzero().squeeze(1)


def exchange(
    index: Tensor, dropped: Tensor, grown: Tensor, *, size: int = LARGEST, name: str = "the weight"
) -> tuple[Tensor, Rewiring]:
    """The topology ``index`` without the entries at the places ``dropped``, with the positions ``grown``.

    Args:
        index: positions [nnz], increasing.
        dropped: places in ``index`` (not positions), increasing.
        grown: positions, increasing, none of them among the survivors.
        size: positions there are.
        name: how errors call the weight.

    Returns:
        the new positions, and where the survivors moved.

    >>> new, moved = exchange(torch.tensor([1, 4, 7]), torch.tensor([0]), torch.tensor([2, 9]))
    >>> new.tolist(), moved.kept_old.tolist(), moved.kept_new.tolist()
    ([2, 4, 7, 9], [1, 2], [1, 2])

    Raises:
        InputError: places or positions out of order or range, or a grown position that is still active.
    """
    _require_vector(index, name)
    if _compiled(index, dropped, grown) and dropped.dtype == grown.dtype == torch.int64:
        done = _exchange(index.contiguous(), dropped.contiguous(), grown.contiguous(), size)
        if done is not None:
            return done
    dropped = positions.check(dropped, index.numel(), "dropped")
    grown = positions.check(grown, size, "grown")
    old = complement(dropped, index.numel())
    kept = index[old]
    _refuse_active(kept, grown, name)
    merged = torch.cat([kept, grown]).sort().values
    return merged, Rewiring(old, torch.searchsorted(merged, kept))


def _exchange(index: Tensor, dropped: Tensor, grown: Tensor, size: int) -> tuple[Tensor, Rewiring] | None:
    """In compiled code; None where something is wrong with the input."""
    survivors = index.numel() - dropped.numel()
    if survivors < 0 or dropped.ndim != 1 or grown.ndim != 1:
        return None
    merged = torch.empty(survivors + grown.numel(), dtype=torch.int64)
    old, new = torch.empty(survivors, dtype=torch.int64), torch.empty(survivors, dtype=torch.int64)
    kept = native.module().merge(
        index.data_ptr(), index.numel(), dropped.data_ptr(), dropped.numel(), grown.data_ptr(), grown.numel(),
        size, merged.data_ptr(), old.data_ptr(), new.data_ptr(),
    )  # fmt: skip
    return None if kept < 0 else (merged, Rewiring(old, new))


def _refuse_active(survivors: Tensor, grown: Tensor, name: str) -> None:
    taken = grown[positions.contains(survivors, grown)]
    if taken.numel():
        raise InputError(
            f"cannot grow the position {int(taken[0])} of {name}, which is active: only positions that are "
            "inactive after dropping can be grown"
        )


def move(vector: Tensor, kept_old: Tensor, kept_new: Tensor, n: int, *, fresh: Tensor | float) -> Tensor:
    """A new vector [n]: entry ``kept_new[i]`` is the old ``kept_old[i]``, every other entry is ``fresh`` (a
    number, or a vector in the order of the other entries).

    >>> move(torch.tensor([1.0, 2.0]), torch.tensor([1]), torch.tensor([0]), 3, fresh=0.5).tolist()
    [2.0, 0.5, 0.5]
    """
    vector = vector.detach()
    if isinstance(fresh, Tensor):
        new = torch.empty(n, dtype=vector.dtype, device=vector.device)
        new.index_copy_(0, complement(kept_new, n).to(vector.device), fresh.detach().to(vector))
    else:
        new = torch.full((n,), fresh, dtype=vector.dtype, device=vector.device)
    if _moved(vector, kept_old, kept_new, new):
        return new
    # an optimizer may keep its state on another device than the weight
    kept = vector.index_select(0, kept_old.to(vector.device))
    return new.index_copy_(0, kept_new.to(vector.device), kept)


def _moved(vector: Tensor, kept_old: Tensor, kept_new: Tensor, new: Tensor) -> bool:
    """Whether compiled code could do it, and has."""
    if not _compiled(vector, kept_old, kept_new) or vector.dtype not in (torch.float32, torch.float64):
        return False
    if kept_old.dtype != torch.int64 or kept_new.dtype != torch.int64 or kept_old.shape != kept_new.shape:
        return False
    vector, kept_old, kept_new = vector.contiguous(), kept_old.contiguous(), kept_new.contiguous()
    done: bool = native.module().move(
        native.is_float64(vector.dtype), vector.data_ptr(), vector.numel(), kept_old.data_ptr(),
        kept_new.data_ptr(), kept_old.numel(), new.data_ptr(), new.numel(),
    )  # fmt: skip
    return done


@torch.no_grad()
def swap(
    weight: SparseWeight, dropped: Tensor, index: Tensor, values: Tensor, *, name: str = "the weight"
) -> Rewiring:
    """Drop the entries ``dropped`` of a weight and add new connections; every other entry stays, bit for bit.

    A position that is both dropped and added starts with its new value: it is a new connection.

    Args:
        dropped: increasing entries of ``weight.values`` that go.
        index: increasing positions [k] of the new connections, none of them at an entry that stays.
        values: their values [k].
        name: how errors call the weight.

    >>> w = SparseWeight((1, 5), torch.tensor([0, 2, 4]), torch.tensor([1.0, 2.0, 3.0]))
    >>> swap(w, torch.tensor([1]), torch.tensor([2]), torch.tensor([9.0])).kept_new.tolist()
    [0, 2]
    >>> w.index.tolist(), w.values.tolist()
    ([0, 2, 4], [1.0, 9.0, 3.0])

    Raises:
        InputError: as for ``exchange``, or a position beyond the weight.
    """
    merged, moved = exchange(weight.index, dropped, index, size=weight.size, name=name)
    new = move(weight.values, *moved, merged.numel(), fresh=0.0)
    new[torch.searchsorted(merged, index)] = values.detach().to(new)
    weight.adopt(merged, new)
    return moved
