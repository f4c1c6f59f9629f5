"""``set_topology``: give a model in training another topology; ``follow``: the same for a running average."""

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


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module) -> None:
    """Bring a running average of ``model`` to the model's topology, before its next update.

    Averages of weights (``torch.optim.swa_utils.AveragedModel``) are taken entry by entry, and after a change
    of topology an entry is another connection. Connections that survived keep their average, new ones begin
    with the model's value, dropped ones are gone. Where nothing has changed, nothing happens.

    Args:
        average: the averaged model, or an ``AveragedModel`` around it.
        model: the model that trains; wrappers of ``torch.compile`` and DDP are looked through.

    >>> from regraft import sparsify
    >>> model = sparsify(nn.Sequential(nn.Linear(20, 10)), density=0.2)
    >>> average = torch.optim.swa_utils.AveragedModel(model)
    >>> _ = model[0].weight.rewire(torch.arange(40), torch.ones(40)[: -sum(model[0].weight.index < 40)])
    >>> follow(average, model); average.update_parameters(model)
    >>> Topology.of(average.module) == Topology.of(model)
    True

    Raises:
        MismatchError: other weights than the model's.
    """
    if isinstance(average, torch.optim.swa_utils.AveragedModel):
        average = average.module
    target = sparse_weights(model)
    changed, values = {}, {}
    for name, weight in sparse_weights(average).items():
        if name not in target or target[name].shape != weight.shape:
            raise MismatchError(
                f"the average has the weight '{name}' of shape {tuple(weight.shape)}, but the model has not: "
                "make the average from a copy of the model"
            )
        index = target[name].index.to(weight.index.device)
        if not torch.equal(index, weight.index):
            changed[name] = (tuple(weight.shape), index)
            values[name] = target[name].values[
                ~positions.contains(weight.index, index).to(target[name].index.device)
            ]
    if changed:
        set_topology(average, None, Topology(changed), init=values)


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
