"""What is exported: a network as a list of steps on plain arrays, without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Weight:
    """The connections of one layer.

    Attributes:
        shape: dense shape, ``(out, in)`` or ``(out, in // groups, *kernel)``.
        index: flat row-major positions, int64 ``[nnz]``, strictly increasing.
        values: float32 ``[nnz]``.
    """

    shape: tuple[int, ...]
    index: NDArray[np.int64]
    values: NDArray[np.float32]

    @classmethod
    def from_dense(cls, dense: NDArray[np.float32]) -> Self:
        """The entries of ``dense`` that are not zero.

        >>> Weight.from_dense(np.eye(2, dtype=np.float32)).index.tolist()
        [0, 3]
        """
        flat = dense.reshape(-1)
        index = np.flatnonzero(flat)
        return cls(dense.shape, index, flat[index])

    @property
    def size(self) -> int:
        """Number of positions, active or not."""
        return math.prod(self.shape)

    @property
    def nnz(self) -> int:
        """Number of connections."""
        return len(self.index)

    @property
    def fan_in_size(self) -> int:
        """Positions of one output unit."""
        return math.prod(self.shape[1:])

    def rows(self) -> NDArray[np.int64]:
        """Output unit of each connection, int64 ``[nnz]``."""
        return self.index // max(self.fan_in_size, 1)

    def dense(self) -> NDArray[np.float32]:
        """The dense weight, zeros where no connection is."""
        flat = np.zeros(self.size, np.float32)
        flat[self.index] = self.values
        return flat.reshape(self.shape)


@dataclass(frozen=True)
class Step:
    """One operation of a network.

    Attributes:
        op: its name, one of ``OPS``.
        where: the module's name in the model, for messages.
        inputs: the numbers of the values that it takes; 0 is the network's input.
        output: the number of the value that it makes.
        shape: shape of that value for one sample.
        settings: what the operation needs to know, plain numbers and tuples.
        weight: the connections of ``linear`` and ``conv``.
        bias: float32 ``[out]`` of ``linear``, ``conv`` and ``scale``.
        factor: float32 ``[channels]`` of ``scale``.
    """

    op: str
    where: str
    inputs: tuple[int, ...]
    output: int
    shape: tuple[int, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    weight: Weight | None = None
    bias: NDArray[np.float32] | None = None
    factor: NDArray[np.float32] | None = None


ACTIVATIONS = (
    "relu", "relu6", "leaky_relu", "elu", "sigmoid", "tanh", "gelu", "silu", "softmax", "log_softmax",
)  # fmt: skip
"""Operations that keep the shape; the last two work along the last dimension."""

OPS = ("linear", "conv", "scale", "max_pool", "avg_pool", "reshape", "add", *ACTIVATIONS)


@dataclass(frozen=True)
class Program:
    """A network: its steps in order of computation.

    Attributes:
        input_shape: shape of one sample.
        steps: the operations; the last one makes the network's output.
        source: a line that says which model this is, for the head of files.
    """

    input_shape: tuple[int, ...]
    steps: tuple[Step, ...]
    source: str = ""

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output for one sample."""
        return self.steps[-1].shape

    def shape_of(self, value: int) -> tuple[int, ...]:
        """Shape of a value for one sample."""
        if value == 0:
            return self.input_shape
        return next(step.shape for step in self.steps if step.output == value)

    def maker_of(self, value: int) -> Step | None:
        """The step that makes a value; None for the network's input."""
        return next((step for step in self.steps if step.output == value), None)

    @property
    def nnz(self) -> int:
        """Connections of all layers together."""
        return sum(step.weight.nnz for step in self.steps if step.weight is not None)
