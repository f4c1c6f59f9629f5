"""``apply``: from a topology to a sparse network that trains and evolves."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from regraft import positions
from regraft.errors import MismatchError
from regraft.evolve import set_topology
from regraft.evolve.named import unwrapped
from regraft.evolve.optimizer_state import Optimizers
from regraft.layers import sparsify
from regraft.topology import Topology
from regraft.weight import SparseWeight

M = TypeVar("M", bound=nn.Module)


def apply(model: M, topology: Topology, *, optimizer: Optimizers = None) -> M:
    """Cut a model down to the connections of ``topology``, in place. Returns the model.

    What stays keeps its value bit for bit; weights that the topology does not name stay as they are. Dense
    layers become sparse ones (build the optimizer afterwards); layers that are sparse already keep their
    Parameters, and the state of ``optimizer`` follows, so pruning in the middle of training is this one call.

    Args:
        optimizer: the optimizer, several, or None.

    >>> from regraft import prune
    >>> model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10))
    >>> topology = prune.upfront(model, score="magnitude", density=0.1, floor=5)
    >>> Topology.of(apply(model, topology)) == topology
    True

    Raises:
        MismatchError: a name or shape that the model does not have, or connections that a sparse model does
            not have.
    """
    inner = unwrapped(model)
    sparse = {n: m for n, m in inner.named_modules() if isinstance(m, SparseWeight)}
    for name, connections in topology.items():
        if name in sparse and tuple(sparse[name].shape) == connections.shape:
            index = connections.index.to(sparse[name].index.device)
            extra = positions.difference(index, sparse[name].index).numel()
            if extra:
                raise MismatchError(
                    f"the topology has {extra} connections in '{name}' that the model does not have: prune a "
                    "topology of this model, or let connections grow with regraft.set_topology"
                )
    dense = Topology({n: c for n, c in topology.items() if n not in sparse})
    if dense:
        sparsify(inner, topology=dense)
    there = Topology({n: c for n, c in topology.items() if n in sparse})
    if there:
        set_topology(inner, optimizer, there)
    return model
