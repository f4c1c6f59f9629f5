"""The sparse layers of a Keras model as one torch module, which the rest of regraft understands."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import nn

from regraft.errors import InputError
from regraft.integrations.keras.base import SparseLayer


def sparse_layers(model: Any) -> dict[str, SparseLayer]:
    """The sparse layers of a model by name, in order, those of inner models too. Where layers of several
    inner models share a name, their path takes its place.

    Raises:
        InputError: there is none, or the model is not built yet.
    """
    found = [layer for layer in model._flatten_layers() if isinstance(layer, SparseLayer)]
    if not found:
        raise InputError(
            f"the model '{model.name}' has no sparse layer: build it with SparseDense layers, or turn its "
            "Dense layers into such by regraft.integrations.keras.sparsify(model, density=...)"
        )
    for layer in found:
        if not layer.built:
            raise InputError(
                f"the layer '{layer.name}' of the model '{model.name}' is not built yet, so it has no "
                "connections: start the model with keras.Input, call model.build(...), or call it once"
            )
    often = Counter(layer.name for layer in found)
    named = {layer.name if often[layer.name] == 1 else layer.path: layer for layer in found}
    if len(named) < len(found):
        twice = next(name for name, n in Counter(layer.path for layer in found).items() if n > 1)
        raise InputError(f"two sparse layers have the name '{twice}': give each layer a name of its own")
    return named


def torch_view(model: Any) -> nn.Module:
    """A torch module with the model's sparse layers under their names; it shares their tensors.

    >>> import keras
    >>> from regraft import Topology
    >>> from regraft.integrations.keras import SparseDense
    >>> model = keras.Sequential([keras.Input((8,)), SparseDense(5, density=0.5, name="hidden")])
    >>> Topology.of(torch_view(model))
    Topology(hidden.weight: 20/40)

    Raises:
        InputError: no sparse layer, or the model is not built yet.
    """
    view = nn.Module()
    # past add_module, which refuses names with a dot
    view._modules.update({name: layer.core for name, layer in sparse_layers(model).items()})
    return view
