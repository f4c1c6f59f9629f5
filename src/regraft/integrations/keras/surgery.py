"""From dense Keras layers to sparse ones, and back: ``sparsify`` and ``densify``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from regraft import allocate as allocation
from regraft import layers
from regraft.allocate import Allocation
from regraft.errors import InputError
from regraft.integrations.keras.base import SparseLayer
from regraft.integrations.keras.conv import SparseConv1D, SparseConv2D, SparseConv3D
from regraft.integrations.keras.dense import SparseDense
from regraft.integrations.keras.required import keras
from regraft.integrations.keras.view import sparse_layers
from regraft.layers.surgery import Init

SPARSE: dict[type[Any], type[SparseLayer]] = {
    keras.layers.Dense: SparseDense,
    keras.layers.Conv1D: SparseConv1D,
    keras.layers.Conv2D: SparseConv2D,
    keras.layers.Conv3D: SparseConv3D,
}
DENSE = {sparse: dense for dense, sparse in SPARSE.items()}
SHADOWS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def sparsify(
    model: Any,
    density: float | None = None,
    *,
    epsilon: float | None = None,
    allocate: Allocation | str = allocation.erdos_renyi,
    include: Iterable[str] | str = ("*",),
    exclude: Iterable[str] | str = (),
    init: Init = "keep",
    seed: int = 0,
) -> Any:
    """A copy of a Sequential or functional model with sparse layers in place of its ``Dense`` and
    ``Conv1D/2D/3D`` layers; the model itself stays as it is. Compile the copy before it trains.

    The same seed gives the same topology as ``regraft.sparsify`` gives a torch model of the same layers with
    ``torch.Generator().manual_seed(seed)``.

    Args:
        density: share of connections kept over all chosen layers together, in (0, 1].
        epsilon: instead of a density, Erdos-Renyi's: epsilon * (in + out) connections in a layer, at most all
            (thesis 3, eq. 3.1).
        allocate: how the density is spread over layers: a name or a function ``(shapes, density) -> counts``.
        include, exclude: shell patterns on layer names.
        init: ``"keep"`` takes the dense values as they are, ``"rescale"`` multiplies each layer's by
            sqrt(positions / connections), so that activations keep their variance.
        seed: of the positions.

    >>> model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(30, "relu"), keras.layers.Dense(10)])
    >>> small = sparsify(model, density=0.1)
    >>> [layer.weight.nnz for layer in small.layers], [type(layer).__name__ for layer in model.layers]
    ([50, 40], ['Dense', 'Dense'])

    Raises:
        InputError: as ``regraft.sparsify``; a model that is not built, a model class of its own, or no layer
            that can be made sparse.
    """
    dense = {name: layer for name, layer in leaves(model).items() if type(layer) in SPARSE}
    if not dense:
        raise InputError(
            f"the model '{model.name}' has no layer that can be made sparse: regraft replaces Dense, Conv1D, "
            "Conv2D and Conv3D layers"
        )
    shadow = nn.Module()
    shadow._modules.update({name: _shadow(layer) for name, layer in dense.items()})
    layers.sparsify(
        shadow, density, epsilon=epsilon, allocate=allocate, include=include, exclude=exclude, init="keep",
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    chosen = {id(dense[name]): core.weight for name, core in layers.sparse_layers(shadow).items()}

    def cloned(layer: Any) -> Any:
        weight = chosen.get(id(layer))
        if weight is None:
            return type(layer).from_config(layer.get_config())
        return SPARSE[type(layer)].from_config(_config(layer) | {"connections": weight.nnz})

    def filled(layer: Any, twin: Any) -> None:
        weight = chosen.get(id(layer))
        if weight is None:
            _take_over(twin, layer)
            return
        flat = twin.to_torch(layer.kernel.value).reshape(-1)
        scale = math.sqrt(weight.size / weight.nnz) if init == "rescale" else 1.0
        twin.positions.assign(weight.index)
        twin.values.assign(flat[twin.positions.value] * scale)
        if layer.use_bias:
            twin.bias.assign(layer.bias)

    if init not in ("keep", "rescale"):
        raise InputError(f"init is {init!r}, but must be 'keep' or 'rescale'")
    return _copy(model, cloned, filled)


def densify(model: Any) -> Any:
    """A copy of a Sequential or functional model with the equal dense layers of Keras in place of its sparse
    ones.

    >>> model = keras.Sequential([keras.Input((20,)), SparseDense(10, density=0.1)])
    >>> [type(layer).__name__ for layer in densify(model).layers]
    ['Dense']

    Raises:
        InputError: no sparse layer, a model that is not built, or a model class of its own.
    """
    sparse_layers(model)

    def cloned(layer: Any) -> Any:
        if type(layer) not in DENSE:
            return type(layer).from_config(layer.get_config())
        config = layer.get_config()
        for name in ("seed", "density", "epsilon", "connections"):
            config.pop(name, None)
        return DENSE[type(layer)].from_config(config)

    def filled(layer: Any, twin: Any) -> None:
        if type(layer) not in DENSE:
            _take_over(twin, layer)
            return
        twin.kernel.assign(layer.kernel.detach())
        if layer.bias is not None:
            twin.bias.assign(layer.bias)

    return _copy(model, cloned, filled)


def leaves(model: Any) -> dict[str, Any]:
    """The layers of a Sequential or functional model and of its inner ones, by name, each once.

    Raises:
        InputError: a model that cannot be copied layer by layer, or is not built.
    """
    seen: dict[str, Any] = {}

    def look(one: Any) -> None:
        if not type(one).__module__.startswith("keras."):  # neither Sequential nor functional
            raise InputError(
                f"the model '{one.name}' is a {type(one).__name__}, a class of its own, whose layers cannot "
                "be replaced from outside: write SparseDense in place of Dense in its code"
            )
        if not one.built:
            raise InputError(
                f"the model '{one.name}' is not built yet, so it has no weights: start it with keras.Input, "
                "call model.build(...), or call it once"
            )
        for layer in one.layers:
            if isinstance(layer, keras.Model):
                look(layer)
            elif seen.setdefault(layer.name, layer) is not layer:
                raise InputError(
                    f"two layers of the model '{model.name}' have the name '{layer.name}': give each a name "
                    "of its own"
                )

    look(model)
    return seen


def _copy(model: Any, cloned: Callable[[Any], Any], filled: Callable[[Any, Any], None]) -> Any:
    """A copy of a model layer by layer, and then the weights."""
    originals = leaves(model)
    twins: list[tuple[Any, Any]] = []

    def clone(layer: Any) -> Any:
        twin = cloned(layer)
        twins.append((layer, twin))
        return twin

    made = keras.models.clone_model(model, clone_function=clone, recursive=True)
    for layer, twin in twins:
        if layer.name in originals and layer.weights:
            filled(layer, twin)
    return made


def _take_over(twin: Any, layer: Any) -> None:
    for mine, others in zip(twin.weights, layer.weights, strict=True):
        mine.assign(others)


def _config(layer: Any) -> dict[str, Any]:
    """The options of a dense layer that its sparse one has, too."""
    config: dict[str, Any] = layer.get_config()
    if config.pop("lora_rank", None) or config.pop("quantization_config", None):
        raise InputError(f"the layer '{layer.name}' has LoRA or quantised weights: exclude it from sparsify")
    for name in ("lora_alpha", "quantization_config", "lora_rank"):
        config.pop(name, None)
    return config


def _shadow(layer: Any) -> nn.Module:
    """A torch layer on the meta device with the shape of a Keras layer's weight."""
    *kernel, inputs, outputs = layer.kernel.shape
    if not kernel:
        return nn.Linear(inputs, outputs, bias=layer.use_bias, device="meta")
    make: Any = SHADOWS[len(kernel) - 1]
    groups = layer.groups
    shadow: nn.Module = make(
        inputs * groups, outputs, tuple(kernel), groups=groups, bias=layer.use_bias, device="meta"
    )
    return shadow
