"""``within``: exactly as many connections as allowed: the smallest cut, places to spare filled with zeros."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, cast

import torch
from torch import nn

from regraft import positions
from regraft.errors import InputError
from regraft.kernels.rewiring import random_inactive
from regraft.layers import sparsify
from regraft.merging.keep import Scope
from regraft.merging.resparsify import resparsify
from regraft.topology import Topology
from regraft.weight import SparseWeight

M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def within(model: M, counts: Mapping[str, int], scope: Scope, generator: torch.Generator | None = None) -> M:
    """Give the named weights exactly ``counts`` connections (their sum, for scope ``"global"``), in place.

    The largest magnitudes stay. Connections that are missing are added at random inactive positions with the
    value 0; with scope ``"global"`` they go where fewer are than ``counts`` says, in proportion. Dense layers
    that are named become sparse.

    >>> from regraft import sparsify
    >>> model = sparsify(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), 0.5, allocate="uniform")
    >>> model = within(model, {"0.weight": 5, "1.weight": 6}, "layer")
    >>> [(layer.weight.nnz, int((layer.weight.values == 0).sum())) for layer in model]
    [(5, 0), (6, 2)]
    """
    if not counts:
        return model
    _make_sparse(model, counts)
    resparsify(model, counts=counts, scope=scope, generator=generator)
    weights = {name: cast(SparseWeight, model.get_submodule(name)) for name in counts}
    room = sum(counts.values()) - sum(w.nnz for w in weights.values())
    missing = {name: max(counts[name] - w.nnz, 0) for name, w in weights.items()}
    seeded = torch.Generator().manual_seed(0) if generator is None else generator
    for name, k in _dealt(room, missing).items():
        weight = weights[name]
        new = random_inactive(weight.index.cpu(), weight.size, k, seeded).to(weight.index.device)
        weight.rewire(positions.union(weight.index, new), weight.values.new_zeros(k))
    return model


def for_readout(counts: Mapping[str, int], last: str, k: int) -> tuple[dict[str, int], dict[str, int]]:
    """``counts`` with ``k`` connections for the last layer and as many in all: the last layer's, the others'.

    >>> for_readout({"a": 30, "b": 60, "c": 10}, "c", 28)
    ({'c': 28}, {'a': 24, 'b': 48})

    Raises:
        InputError: the last layer is not sparse, or ``k`` leaves nothing for it or for the others.
    """
    if last not in counts:
        raise InputError(f"readout is {k!r}, but the last layer '{last}' is dense: leave readout out")
    total = sum(counts.values())
    if isinstance(k, bool) or not isinstance(k, int) or not 0 < k < total:
        raise InputError(
            f"readout is {k!r}, but must be a whole number in (0, {total}), the connections that all layers "
            "have together"
        )
    others = {name: n for name, n in counts.items() if name != last}
    return {last: k}, _dealt(total - k, others)


def _make_sparse(model: nn.Module, counts: Mapping[str, int]) -> None:
    modules = dict(model.named_modules())
    dense = {n: model.get_parameter(n) for n in counts if n not in modules}
    if dense:
        nonzero = {n: (tuple(w.shape), w.reshape(-1).nonzero().squeeze(1)) for n, w in dense.items()}
        sparsify(model, topology=Topology(nonzero))


def _dealt(room: int, missing: Mapping[str, int]) -> dict[str, int]:
    """``room`` connections among layers, in proportion to what each misses; not more where not all miss less.

    >>> _dealt(5, {"a": 2, "b": 8})
    {'a': 1, 'b': 4}
    """
    dealt, before, all_missing = {}, 0, sum(missing.values())
    for name, k in missing.items():  # rounded sums, so that nothing is lost between layers
        upto = before + k
        dealt[name] = room * upto // max(all_missing, 1) - room * before // max(all_missing, 1)
        before = upto
    return dealt
