"""``set_topology``: give a model another topology, of any size, in the middle of training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from regraft import positions
from regraft.errors import MismatchError
from regraft.evolve.context import Context
from regraft.evolve.grow import Init, init_by_name, initial_values
from regraft.evolve.named import sparse_weights
from regraft.evolve.optimizer_state import Optimizers, optimizers, remap_state
from regraft.topology import Topology
from regraft.weight import SparseWeight


@torch.no_grad()
def set_topology(
    model: nn.Module,
    optimizer: Optimizers,
    topology: Topology,
    *,
    init: str | Init | Mapping[str, Tensor] = "zeros",
    generator: torch.Generator | None = None,
) -> None:
    """Change a model to the connections of ``topology``; survivors keep values and optimizer state bit for
    bit.

    It may shrink a weight (gradual pruning), enlarge it, or both. Nothing is changed unless all of it fits. A
    model wrapped in DistributedDataParallel must be wrapped anew where the number of connections changes,
    since its communication buffers have the old sizes.

    Args:
        optimizer: the optimizer, several, or None; their state follows (``remap_state``).
        topology: connections by weight name; weights it does not name stay as they are.
        init: values of new connections: a name or function as in ``RandomGrowth``, or
            ``{weight name: values [new positions, increasing]}``.
        generator: for random initial values; default seeded with ``torch.initial_seed()``.

    >>> from regraft import sparsify
    >>> model = sparsify(nn.Sequential(nn.Linear(4, 4)), density=0.5)
    >>> smaller = Topology({"0.weight": ((4, 4), model[0].weight.index[:3])})
    >>> set_topology(model, None, smaller)
    >>> model[0].weight.nnz
    3

    Raises:
        InputError: the model has no sparse weight; unknown ``init``.
        MismatchError: a name or shape that the model does not have; not one value per new position.
    """
    weights = sparse_weights(model)
    generator = torch.Generator().manual_seed(torch.initial_seed()) if generator is None else generator
    if isinstance(init, str):
        init_by_name(init)
    planned: list[tuple[SparseWeight, Tensor, Tensor]] = []
    for name, connections in topology.items():
        if name not in weights:
            raise MismatchError(
                f"the topology has the weight '{name}', but the model's sparse weights are: "
                + ", ".join(f"'{n}'" for n in weights)
            )
        weight = weights[name]
        if tuple(weight.shape) != connections.shape:
            raise MismatchError(
                f"the topology's '{name}' has shape {connections.shape}, but the model's has "
                f"{tuple(weight.shape)}"
            )
        index = connections.index.to(weight.index.device)
        fresh = positions.difference(index, weight.index)
        planned.append((weight, index, _new_values(init, name, weight, fresh, Context(name, generator))))
    for weight, index, values in planned:
        old_nnz = weight.nnz
        rewiring = weight.rewire(index, values)
        for one in optimizers(optimizer):
            remap_state(one, weight.values, rewiring, old_nnz)


def _new_values(
    init: str | Init | Mapping[str, Tensor], name: str, weight: SparseWeight, fresh: Tensor, context: Context
) -> Tensor:
    if not isinstance(init, Mapping):
        return initial_values(init, weight, fresh, context)
    values = init.get(name, weight.values.new_empty(0))
    if values.shape != fresh.shape:
        raise MismatchError(
            f"init has {values.numel()} values for '{name}', but {fresh.numel()} positions are new: "
            "pass one value for each, in the order of the positions"
        )
    return values
