"""``SparseDense``: takes the place of ``keras.layers.Dense``."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from regraft import kernels, layers
from regraft.errors import InputError
from regraft.integrations.keras.base import SparseLayer
from regraft.integrations.keras.required import keras
from regraft.integrations.keras.weight import VariableWeight

ELEMENTWISE = (
    "linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "sigmoid", "tanh",
    "softplus", "softsign", "hard_sigmoid", "hard_silu", "hard_tanh", "exponential", "log_sigmoid",
)  # fmt: skip
ELEMENTWISE_LAYERS = (
    keras.layers.Dropout, keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU,
    keras.layers.GaussianNoise,
)  # fmt: skip


@keras.saving.register_keras_serializable(package="regraft")
class SparseDense(SparseLayer):
    """y = activation(x K + b) with a sparse kernel K; takes the place of ``keras.layers.Dense``.

    Input ``(batch, ..., in)``, output ``(batch, ..., units)``. The variables are the values and positions of
    the connections and the bias; memory, gradients and the optimizer's slots are as small as they.

    Args:
        units: number of output units.
        activation, use_bias, kernel_initializer, bias_initializer: as in ``Dense``. Fans are counted in
            connections.
        kernel_regularizer, bias_regularizer, activity_regularizer, bias_constraint: as in ``Dense``.
        kernel_constraint: one that looks at each value alone, such as ``NonNeg``.
        density: share of the connections that exist, in (0, 1], uniform over all positions together.
        epsilon: instead of it, Erdos-Renyi's: epsilon * (in + units) connections, at most all (thesis 3, eq.
            3.1).
        connections: instead of both, how many.
        seed: of the positions; default: drawn as Keras's initialisers draw theirs
            (``keras.utils.set_random_seed``).

    >>> model = keras.Sequential([keras.Input((784,)), SparseDense(300, "relu", density=0.05, seed=0)])
    >>> [(v.name, tuple(v.shape)) for v in model.weights]
    [('values', (11760,)), ('bias', (300,)), ('positions', (11760,))]

    Raises:
        InputError: not exactly one of density, epsilon and connections, or one out of range; no connection;
            a constraint or regulariser of whole columns.
    """

    def __init__(self, units: int, activation: Any = None, use_bias: bool = True, **options: Any) -> None:
        if isinstance(units, bool) or not isinstance(units, int) or units < 1:
            raise InputError(f"units is {units!r}, but must be a whole number of 1 or more")
        super().__init__(activation=activation, use_bias=use_bias, **options)
        self.units = units
        self.input_spec = keras.layers.InputSpec(min_ndim=2)

    def weight_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int, ...]:
        inputs = input_shape[-1]
        if inputs is None:
            raise InputError(
                f"the last dimension of the input of '{self.name}' is not known (shape {input_shape}), but "
                "it says how many inputs there are: give it, as in keras.Input((784,))"
            )
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: inputs})
        return self.units, inputs

    def new_core(self, weight: VariableWeight) -> layers.SparseLayer:
        if self._inbound_nodes:  # in a graph, so who reads the output is known
            kernels.layout.hand_on(weight, _only_sparse_layers_read(self))
        return layers.SparseLinear(weight, None)

    def compute(self, inputs: Tensor, core: layers.SparseLayer) -> Tensor:
        outputs: Tensor = core(inputs)
        return outputs

    def compute_dense(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(inputs, weight, bias)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*tuple(input_shape)[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"units": self.units}


def _only_sparse_layers_read(layer: Any) -> bool:
    """Whether in the graph of a Sequential or functional model nothing but sparse layers reads the output,
    after operations on single elements, which keep how it lies in memory."""
    todo, found = [layer], False
    while todo:
        one = todo.pop()
        if not one._outbound_nodes or not _elementwise(one):
            return False
        for follower in (node.operation for node in one._outbound_nodes):
            if isinstance(follower, SparseDense):
                found = True
            else:
                todo.append(follower)
    return found


def _elementwise(layer: Any) -> bool:
    if isinstance(layer, SparseDense | keras.layers.Activation):
        return getattr(layer.activation, "__name__", "") in ELEMENTWISE
    return type(layer) in ELEMENTWISE_LAYERS
