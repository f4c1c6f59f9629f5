"""``sparsify_like``: a dense model made ready for the state of a sparse one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from regraft.errors import MismatchError
from regraft.layers import SparseLayer, sparsify
from regraft.topology import Topology

M = TypeVar("M", bound=nn.Module)


def sparsify_like(model: M, state: Mapping[str, Any]) -> M:
    """Make those layers of ``model`` sparse, in place, that are sparse in ``state``. Returns the model.

    Afterwards ``model.load_state_dict(state)`` works: for checkpoints of frameworks, which build a dense
    model and then load into it. Layers that are sparse already are left alone; they take over any topology
    when they load.

    Args:
        state: a ``state_dict`` of the model, made sparse.

    >>> import regraft
    >>> sparse = regraft.sparsify(nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2)), density=0.5, exclude="1")
    >>> model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2))
    >>> _ = sparsify_like(model, sparse.state_dict()).load_state_dict(sparse.state_dict())
    >>> Topology.of(model) == Topology.of(sparse)
    True

    Raises:
        MismatchError: the model has no such layer.
        InputError: positions that do not fit the layer's shape.
    """
    modules = dict(model.named_modules())
    found = {}
    for key, index in state.items():
        name = key.removesuffix(".weight.index")
        if name == key or f"{name}.weight.values" not in state:
            continue
        layer = modules.get(name)
        if isinstance(layer, SparseLayer):
            continue
        if layer is None or not isinstance(getattr(layer, "weight", None), Tensor):
            raise MismatchError(
                f"'{name}' is sparse in the state, but the {type(model).__name__} has no such layer: pass a "
                "model of the same architecture"
            )
        found[f"{name}.weight"] = (tuple(layer.weight.shape), index)
    if not found:
        return model
    names = [name.removesuffix(".weight") for name in found]
    return sparsify(model, topology=Topology(found), include=names)
