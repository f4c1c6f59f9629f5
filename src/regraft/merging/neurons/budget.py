"""``within``: exactly as many connections as allowed: the smallest cut, places to spare filled with zeros."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, cast

import torch
from torch import nn

from regraft import positions
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


def _make_sparse(model: nn.Module, counts: Mapping[str, int]) -> None:
    modules = dict(model.named_modules())
    dense = {n: model.get_parameter(n) for n in counts if n not in modules}
    if dense:
        nonzero = {n: (tuple(w.shape), w.reshape(-1).nonzero().squeeze(1)) for n, w in dense.items()}
        sparsify(model, topology=Topology(nonzero))


def _dealt(room: int, missing: Mapping[str, int]) -> dict[str, int]:
    """``room`` new connections among layers, in proportion to what each misses, never more than that.

    >>> _dealt(5, {"a": 2, "b": 8})
    {'a': 1, 'b': 4}
    """
    dealt, before, all_missing = {}, 0, sum(missing.values())
    for name, k in missing.items():  # rounded sums, so that nothing is lost between layers
        upto = before + k
        dealt[name] = room * upto // max(all_missing, 1) - room * before // max(all_missing, 1)
        before = upto
    return dealt
