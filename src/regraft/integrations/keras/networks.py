"""Keras perceptrons as networks of regraft, and back: what merging, files and the command line work on."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from regraft import checkpoint, layers, models
from regraft.container import PathLike
from regraft.errors import FileError, InputError
from regraft.files import read_network
from regraft.integrations.keras.base import SparseLayer
from regraft.integrations.keras.dense import SparseDense
from regraft.integrations.keras.required import keras
from regraft.integrations.keras.surgery import leaves
from regraft.weight import SparseWeight

# Keras's activations and regraft's, which are torch's
ACTIVATIONS = ("relu", "sigmoid", "tanh", "elu", "gelu", "silu", "leaky-relu")
HEADS = ("linear", "softmax", "sigmoid")
LEAKY_SLOPE = 0.01  # of torch's LeakyReLU
SPEC_OF_MLP = ("sizes", "activation", "dropout")


@dataclass
class _Chain:
    """What was read of a Keras model: its weight layers, and what stands between them."""

    weights: list[Any] = field(default_factory=list)
    activations: list[str] = field(default_factory=list)  # after each weight layer
    dropouts: list[float] = field(default_factory=list)


def to_torch(model: Any) -> nn.Module:
    """A Keras perceptron as the torch network that ``regraft.models.build("mlp:...")`` makes, with copies of
    its positions, values and biases, in evaluation mode.

    The model is a chain of ``SparseDense`` and ``Dense`` layers with one activation between them and
    dropout, if any, at one rate; Flatten may stand first. A softmax or sigmoid at the end is left off: the
    networks of regraft give out logits.

    >>> from regraft import Topology
    >>> model = keras.Sequential([
    ...     keras.Input((8,)), SparseDense(6, "relu", density=0.5), keras.layers.Dense(2, "softmax")
    ... ])
    >>> network = to_torch(model)
    >>> network.spec["sizes"], Topology.of(network)
    ([8, 6, 2], Topology(fc1.weight: 24/48))

    Raises:
        InputError: the model is not built, or no such chain; the message says which layer does not fit.
    """
    chain = _read(model)
    first = chain.weights[0].kernel.shape[0] if chain.weights else 0
    sizes = [int(first), *(layer.units for layer in chain.weights)]
    hidden = set(chain.activations[:-1]) or {"relu"}
    rates = set(chain.dropouts[:-1]) or {0.0}
    for what, found in (("activation", hidden), ("dropout", rates)):
        if len(found) > 1:
            raise InputError(
                f"the hidden layers of the model '{model.name}' differ in their {what} "
                f"({', '.join(sorted(map(str, found)))}), but a network of regraft has one for all"
            )
    if chain.dropouts[-1]:
        raise InputError(f"the model '{model.name}' ends with dropout, which a network of regraft does not")
    if chain.activations[-1] not in HEADS:
        raise InputError(
            f"the model '{model.name}' ends with the activation '{chain.activations[-1]}', but a network of "
            f"regraft gives out what its last layer computes; only {', '.join(HEADS[1:])} can be left off"
        )
    activation, dropout = hidden.pop(), rates.pop()
    if activation not in ACTIVATIONS:
        raise InputError(
            f"the activation '{activation}' of the model '{model.name}' has no counterpart in regraft, which "
            f"has {', '.join(ACTIVATIONS)}"
        )
    spec = {"name": "mlp", "sizes": sizes, "activation": activation, "dropout": dropout}
    network = models.build(spec, device="meta")
    for number, layer in enumerate(chain.weights, start=1):
        setattr(network, f"fc{number}", _torch_layer(layer))
    return network.eval()


def from_torch(network: nn.Module, *, head: str = "linear") -> Any:
    """A Keras model with copies of the positions, values and biases of an ``mlp`` of regraft: ``SparseDense``
    where the network is sparse, ``Dense`` elsewhere.

    Args:
        network: as ``regraft.models.build`` or ``regraft.load`` gives it, with its ``spec``.
        head: activation of the last layer: ``"linear"`` (logits), ``"softmax"`` or ``"sigmoid"``.

    >>> from regraft import sparsify
    >>> network = sparsify(models.build("mlp:8-6-2"), density=0.5)
    >>> model = from_torch(network, head="softmax")
    >>> [(layer.name, type(layer).__name__) for layer in model.layers]
    [('flatten', 'Flatten'), ('fc1', 'SparseDense'), ('fc2', 'SparseDense')]

    Raises:
        InputError: another network than an mlp of regraft, or an unknown head.
    """
    spec = getattr(network, "spec", None)
    if not isinstance(spec, Mapping) or spec.get("name") != "mlp" or not set(SPEC_OF_MLP) <= set(spec):
        raise InputError(
            f"the {type(network).__name__} is no mlp of regraft (its spec is {spec!r}): only networks of "
            "regraft.models.build('mlp:...') become Keras models"
        )
    if head not in HEADS:
        raise InputError(f"head is {head!r}, but must be one of {', '.join(HEADS)}")
    sizes, dropout = list(spec["sizes"]), float(spec["dropout"])
    parts: list[Any] = [keras.Input((sizes[0],)), keras.layers.Flatten(name="flatten")]
    last = len(sizes) - 1
    for number, (_, units) in enumerate(itertools.pairwise(sizes), start=1):
        here = head if number == last else spec["activation"]
        leaky = here == "leaky-relu"
        own = "linear" if leaky else here
        parts.append(_keras_layer(getattr(network, f"fc{number}"), units, own, f"fc{number}"))
        if leaky:
            parts.append(keras.layers.LeakyReLU(negative_slope=LEAKY_SLOPE, name=f"activation{number}"))
        if number < last and dropout > 0:
            parts.append(keras.layers.Dropout(dropout, name=f"dropout{number}"))
    model = keras.Sequential(parts)
    for number in range(1, last + 1):
        _fill(model.get_layer(f"fc{number}"), getattr(network, f"fc{number}"))
    return model


def save(model: Any, path: PathLike, *, provenance: Mapping[str, Any] | None = None) -> None:
    """Write a Keras perceptron as a network file of regraft, which ``regraft merge``, ``regraft evaluate``
    and the other commands read: ``regraft.save`` of ``to_torch``.

    For Keras itself, ``model.save("name.keras")`` keeps everything, the optimizer too.

    >>> import tempfile
    >>> model = keras.Sequential([keras.Input((8,)), SparseDense(2, density=0.5)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(model, f"{folder}/n.safetensors")
    ...     again = load(f"{folder}/n.safetensors")
    >>> bool((again.layers[-1].kernel == model.layers[-1].kernel).all())
    True

    Raises:
        InputError: as ``to_torch``; weights that are NaN or infinite.
        FileError: the file cannot be written.
    """
    checkpoint.save(to_torch(model), path, provenance=provenance)


def load(path: PathLike, *, head: str = "linear") -> Any:
    """A Keras model from a network file of regraft that holds an ``mlp``; see ``from_torch``.

    Raises:
        FileError: missing, not a network of regraft, damaged, or a network that is no mlp.
        InputError: an unknown head.
    """
    _, header = read_network(path)
    if not isinstance(header.model, Mapping) or header.model.get("name") != "mlp":
        raise FileError(
            f"'{path}' holds the model {None if header.model is None else dict(header.model)}, but only an "
            "mlp of regraft becomes a Keras model"
        )
    return from_torch(checkpoint.load(path), head=head)


def _read(model: Any) -> _Chain:
    """The layers of a model in the order in which they are called, checked to be a chain."""
    leaves(model)
    chain = _Chain()
    for layer in _in_order(model):
        if type(layer) in (keras.layers.Dense, SparseDense):
            chain.weights.append(layer)
            chain.activations.append(_name_of(layer.activation))
            chain.dropouts.append(0.0)
        elif type(layer) is keras.layers.Dropout and chain.weights and not chain.dropouts[-1]:
            chain.dropouts[-1] = float(layer.rate)
        elif type(layer) is keras.layers.Flatten and not chain.weights:
            continue
        elif (name := _activation_layer(layer)) and chain.weights and chain.activations[-1] == "linear":
            chain.activations[-1] = name
        else:
            raise InputError(
                f"the layer '{layer.name}' ({type(layer).__name__}) of the model '{model.name}' has no place "
                "in a network file of regraft: it takes Dense and SparseDense layers in a chain, an "
                "activation and dropout between them, and Flatten at the start"
            )
    if not chain.weights:
        raise InputError(f"the model '{model.name}' has no Dense or SparseDense layer")
    return chain


def _in_order(model: Any) -> list[Any]:
    """The layers and operations along the one path through a model, inner models opened."""
    found: list[Any] = []
    sequential = isinstance(model, keras.Sequential)
    for one in model.layers if sequential else model.operations:
        if isinstance(one, keras.Model):
            found += _in_order(one)
        elif not isinstance(one, keras.layers.InputLayer):
            found.append(one)
    if not sequential:
        _check_path(model)
    return found


def _check_path(model: Any) -> None:
    """Raise InputError unless a functional model is one path from one input to one output."""
    nodes = [node for level in model._nodes_by_depth.values() for node in level]
    for operation, times in Counter(node.operation for node in nodes).items():
        if times > 1:
            raise InputError(
                f"the layer '{operation.name}' of the model '{model.name}' is called {times} times, but in a "
                "network of regraft each layer has weights of its own"
            )
    used = [id(t) for t in (*model.outputs, *(t for node in nodes for t in node.input_tensors))]
    if len(model.outputs) != 1 or len(model.inputs) != 1 or len(set(used)) < len(used):
        raise InputError(f"the model '{model.name}' branches, but a network of regraft is a chain of layers")


def _name_of(activation: Any) -> str:
    """The name of an activation, a function or a layer of Keras, as regraft has it."""
    if isinstance(activation, keras.layers.Layer):
        return _activation_layer(activation) or activation.name
    return str(getattr(activation, "__name__", activation))


def _activation_layer(layer: Any) -> str | None:
    """The name of the activation that a layer of Keras is, or None."""
    if type(layer) is keras.layers.Activation:
        return _name_of(layer.activation)
    if type(layer) is keras.layers.LeakyReLU:
        same = abs(layer.negative_slope - LEAKY_SLOPE) < 1e-9
        return "leaky-relu" if same else f"leaky-relu of slope {layer.negative_slope:g}"
    if type(layer) is keras.layers.ReLU:
        plain = not layer.negative_slope and not layer.threshold and layer.max_value is None
        return "relu" if plain else None
    if type(layer) is keras.layers.ELU:
        return "elu" if layer.alpha == 1.0 else None
    return "softmax" if type(layer) is keras.layers.Softmax else None


def _torch_layer(layer: Any) -> nn.Module:
    """A copy of a Keras layer as the layer of torch or regraft."""
    bias = None if layer.bias is None else layer.bias.value.detach().cpu().clone()
    if isinstance(layer, SparseLayer):
        index, values = layer.positions.value.detach(), layer.values.value.detach()
        weight = SparseWeight(layer.shape, index.cpu().clone(), values.cpu().clone())
        return layers.SparseLinear(weight, bias)
    kernel: Tensor = layer.kernel.value.detach().cpu()
    inputs, units = kernel.shape
    made = nn.Linear(inputs, units, bias=bias is not None, dtype=kernel.dtype)
    with torch.no_grad():
        made.weight.copy_(kernel.t())
        if bias is not None:
            made.bias.copy_(bias)
    return made


def _keras_layer(layer: Any, units: int, activation: Any, name: str) -> Any:
    use_bias = layer.bias is not None
    if isinstance(layer.weight, SparseWeight):
        return SparseDense(units, activation, use_bias, connections=layer.weight.nnz, seed=0, name=name)
    return keras.layers.Dense(units, activation, use_bias, name=name)


def _fill(made: Any, layer: Any) -> None:
    if isinstance(made, SparseDense):
        made.positions.assign(layer.weight.index)
        made.values.assign(layer.weight.values.detach())
    else:
        made.kernel.assign(layer.weight.detach().t())
    if layer.bias is not None:
        made.bias.assign(layer.bias.detach())
