"""What the sparse layers of Keras share: variables, initial values, configuration, files."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from regraft import layers, positions
from regraft.allocate import ErdosRenyi
from regraft.errors import FileError, InputError, MismatchError, RegraftError, check_density
from regraft.files import index_dtype
from regraft.integrations.keras.initial import initial_values
from regraft.integrations.keras.required import keras
from regraft.integrations.keras.weight import VariableWeight

OF_COLUMNS = ("MaxNorm", "MinMaxNorm", "UnitNorm", "OrthogonalRegularizer")


class SparseLayer(keras.layers.Layer):
    """A Keras layer of which only the active connections exist.

    Attributes:
        values: trainable variable [connections]: what an optimizer sees, and so all that its slots hold.
        positions: int64 variable [connections] that does not train: flat row-major positions in the weight as
            torch lays it out, (out, in) or (out, in, *kernel), increasing. It is among the layer's weights,
            so that whatever keeps or restores weights keeps the topology with them.
        bias: trainable variable [out], or None.
    """

    values: Any
    positions: Any
    bias: Any

    def __init__(
        self,
        *,
        activation: Any = None,
        use_bias: bool = True,
        density: float | None = None,
        epsilon: float | None = None,
        connections: int | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.wanted = _wanted(type(self).__name__, density, epsilon, connections)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = _elementwise(keras.regularizers.get(kernel_regularizer))
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = _elementwise(keras.constraints.get(kernel_constraint))
        self.bias_constraint = keras.constraints.get(bias_constraint)
        # as Keras's own initialisers do without a seed: keras.utils.set_random_seed decides
        self.seed = random.randint(1, 10**9) if seed is None else seed
        self.supports_masking = True
        self.values = self.positions = self.bias = None

    def weight_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int, ...]:
        """The shape of the dense weight as torch lays it out, for an input of this shape."""
        raise NotImplementedError

    def new_core(self, weight: VariableWeight) -> layers.SparseLayer:
        """The layer of regraft that computes, without a bias."""
        raise NotImplementedError

    def compute(self, inputs: Tensor, core: layers.SparseLayer) -> Tensor:
        """Output by the sparse kernels, before the activation."""
        raise NotImplementedError

    def compute_dense(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The same of a dense weight [weight_shape]."""
        raise NotImplementedError

    def to_keras(self, weight: Tensor) -> Tensor:
        """A dense weight in Keras's order of dimensions: (*kernel, in, out)."""
        return weight.permute(*range(2, weight.ndim), 1, 0)

    def to_torch(self, kernel: Tensor) -> Tensor:
        """A kernel of Keras in torch's order of dimensions: (out, in, *kernel)."""
        return kernel.permute(-1, -2, *range(kernel.ndim - 2))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.shape = self.weight_shape(tuple(input_shape))
        count = _count(self.wanted, self.shape, self.name)

        def drawn(shape: Any, dtype: Any = None) -> Tensor:
            generator = torch.Generator().manual_seed(self.seed)
            return positions.sample(math.prod(self.shape), count, generator)

        def filled(shape: Any, dtype: Any = None) -> Tensor:
            kernel_shape = (*self.shape[2:], self.shape[1], self.shape[0])
            return initial_values(
                self.kernel_initializer, kernel_shape, count, dtype,
                lambda kernel: self.to_torch(kernel).reshape(-1)[drawn(shape).to(kernel.device)],
            )  # fmt: skip

        self.values = self.add_weight(
            name="values", shape=(count,), initializer=filled, regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )  # fmt: skip
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=self.shape[:1], initializer=self.bias_initializer,
                regularizer=self.bias_regularizer, constraint=self.bias_constraint,
            )  # fmt: skip
        self.positions = self.add_weight(
            name="positions", shape=(count,), initializer=drawn, dtype="int64", trainable=False
        )

    def call(self, inputs: Any) -> Any:
        values, bias = self.values.value, None if self.bias is None else self.bias.value
        core = self._core(values, bias)
        if core is not None:
            outputs = self.compute(inputs, core)
        else:  # mixed precision, a stateless call, shapes only: variables stand for other tensors
            flat = values.new_zeros(math.prod(self.shape))
            dense = flat.scatter(0, self.positions.value, values).view(self.shape)
            outputs = self.compute_dense(inputs, dense, bias)
        return outputs if self.activation is None else self.activation(outputs)

    def _core(self, values: Tensor, bias: Tensor | None) -> layers.SparseLayer | None:
        """The layer of regraft around these very tensors; None where they are no variables of their own."""
        core = cast(layers.SparseLayer | None, self.__dict__.get("_made_core"))
        if core is None or core.weight.values is not values or core.bias is not bias:
            if (
                type(values) is not nn.Parameter
                or values.is_meta
                or type(bias) not in (nn.Parameter, type(None))
            ):
                return None
            weight = VariableWeight(self.shape, self.positions.value, values)
            core = self.new_core(weight)
            core.bias = cast(nn.Parameter | None, bias)
            self.__dict__["_made_core"] = core  # Keras would take a module for one more layer
        cast(VariableWeight, core.weight).refresh()
        return core

    @property
    def core(self) -> layers.SparseLayer:
        """The torch layer of regraft that computes; it shares its tensors with the variables.

        Raises:
            InputError: the layer is not built yet.
        """
        if not self.built or self.values is None:
            raise InputError(
                f"the layer '{self.name}' has no connections yet: build the model first, by "
                "model.build(...), keras.Input, or calling it once"
            )
        made = self._core(self.values.value, None if self.bias is None else self.bias.value)
        if made is None:
            raise InputError(f"the variables of the layer '{self.name}' have no values of their own here")
        return made

    @property
    def weight(self) -> VariableWeight:
        """Positions and values as regraft knows them, of shape (out, in) or (out, in, *kernel)."""
        return cast(VariableWeight, self.core.weight)

    @property
    def kernel(self) -> Tensor:
        """The dense kernel in Keras's own shape, (in, out) or (*kernel, in, out), made anew for each look."""
        return self.to_keras(self.weight.dense())

    @property
    def density(self) -> float:
        """Active connections / positions."""
        return self.weight.density

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return config | {
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            **dict([self.wanted]),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "activity_regularizer": keras.regularizers.serialize(self.activity_regularizer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
            "seed": self.seed,
        }

    def save_own_variables(self, store: Any) -> None:
        index = self.positions.value
        store["positions"] = index.to(index_dtype(math.prod(self.shape))).cpu().numpy()
        store["values"] = self.values
        if self.bias is not None:
            store["bias"] = self.bias

    def load_own_variables(self, store: Any) -> None:
        """Take over positions and values, all of them or nothing.

        Raises:
            MismatchError: another number of connections or units.
            FileError: positions unsorted, duplicated or out of range.
        """
        read = keras.ops.convert_to_tensor
        found = {name: read(store[name][...]) for name in store.keys()}  # noqa: SIM118  no dict
        self.take(found, f"the file's layer for '{self.name}'")

    def take(self, tensors: Mapping[str, Tensor], source: str) -> None:
        """Write positions, values and bias into the variables; nothing is written unless all of it fits."""
        mine = {"positions": self.positions, "values": self.values}
        if self.bias is not None:
            mine["bias"] = self.bias
        if set(tensors) != set(mine):
            raise MismatchError(f"{source} has {sorted(tensors)}, but {sorted(mine)} are needed")
        for name, variable in mine.items():
            if tuple(tensors[name].shape) != tuple(variable.shape):
                raise MismatchError(
                    f"{source} has {name} of shape {tuple(tensors[name].shape)}, but here there are "
                    f"{tuple(variable.shape)}: build the layer with as many connections and units"
                )
        try:
            positions.check(tensors["positions"], math.prod(self.shape), "positions")
        except RegraftError as error:
            raise FileError(f"{source} is corrupt: {error}") from error
        for name, variable in mine.items():
            variable.assign(tensors[name])


def _wanted(
    kind: str, density: float | None, epsilon: float | None, connections: int | None
) -> tuple[str, float | int]:
    """Which of the three is given, and its value, checked."""
    given = {"density": density, "epsilon": epsilon, "connections": connections}
    asked = [(name, value) for name, value in given.items() if value is not None]
    if len(asked) != 1:
        raise InputError(f"{kind} needs exactly one of density=, epsilon= and connections=")
    name, value = asked[0]
    if name == "density":
        check_density(value)
    elif name == "epsilon":
        ErdosRenyi(value)
    elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"connections is {value!r}, but must be a whole number of 1 or more")
    return name, value


def _count(wanted: tuple[str, float | int], shape: tuple[int, ...], name: str) -> int:
    """How many connections that is for a weight of ``shape``."""
    (kind, value), size = wanted, math.prod(shape)
    if kind == "epsilon":
        count = ErdosRenyi(value)([shape])[0]
    else:
        count = int(value) if kind == "connections" else round(value * size)
    if not 1 <= count <= size:
        raise InputError(
            f"the layer '{name}' would get {count} connections at {kind} {value}, but it has {size} "
            f"positions (shape {shape}) and needs at least one connection: change {kind}"
        )
    return count


def _elementwise(rule: Any) -> Any:
    """``rule``, unless it is one of Keras's that looks at columns or at the whole matrix."""
    if type(rule).__name__ in OF_COLUMNS:
        raise InputError(
            f"{type(rule).__name__} looks at whole columns of a kernel, but a sparse layer has a vector of "
            "values: take one that looks at each value alone, such as L1, L2 or NonNeg"
        )
    return rule
