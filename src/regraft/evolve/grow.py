"""Which connections come: (weight, survivors, k, context) -> positions and initial values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from regraft import positions
from regraft.errors import MismatchError, unknown
from regraft.evolve.context import Context, Growth
from regraft.kernels.rewiring import random_inactive
from regraft.weight import SparseWeight


class Init(Protocol):
    """``(weight, index, context) -> values``: initial values [k] of the new connections at ``index`` [k]."""

    def __call__(self, weight: SparseWeight, index: Tensor, context: Context) -> Tensor: ...


def zeros(weight: SparseWeight, index: Tensor, context: Context) -> Tensor:
    """0 for each new connection, so that growing does not change what the network computes."""
    return weight.values.new_zeros(index.numel())


def fan_in(weight: SparseWeight, index: Tensor, context: Context) -> Tensor:
    """Uniform in +-1/sqrt(mean active fan-in), the range in which ``torch.nn.Linear`` would start with that
    many inputs per unit."""
    connections = weight.nnz or index.numel()  # an empty weight has the fan-in that it grows
    bound = math.sqrt(weight.shape[0] / connections) if connections else 0.0
    return _uniform(index, weight, bound, context)


def dense_fan_in(weight: SparseWeight, index: Tensor, context: Context) -> Tensor:
    """Uniform in +-1/sqrt(dense fan-in), the range in which the dense ``torch.nn`` layer starts, and hence a
    layer that ``sparsify`` took over as it was."""
    return _uniform(index, weight, 1.0 / math.sqrt(max(weight.fan_in_size, 1)), context)


def _uniform(index: Tensor, weight: SparseWeight, bound: float, context: Context) -> Tensor:
    # drawn where the generator lives, so that a CPU generator gives every device the same numbers
    unit = torch.rand(index.numel(), generator=context.generator, device=context.generator.device)
    return ((2.0 * unit - 1.0) * bound).to(weight.values)


INITS: dict[str, Init] = {"zeros": zeros, "fan_in": fan_in, "dense_fan_in": dense_fan_in}


def init_by_name(name: str) -> Init:
    """The initial value rule called ``name``, or an error with the nearest names."""
    if name not in INITS:
        raise unknown("initial value", name, INITS)
    return INITS[name]


def initial_values(init: str | Init, weight: SparseWeight, index: Tensor, context: Context) -> Tensor:
    """Initial values [k] of the new connections at ``index`` [k], checked.

    Raises:
        InputError: unknown name.
        MismatchError: a rule of the caller's that returned another number of values.
    """
    rule = init_by_name(init) if isinstance(init, str) else init
    values = rule(weight, index, context)
    if values.shape != index.shape:
        raise MismatchError(
            f"the initial values for '{context.name}' have shape {tuple(values.shape)}, but {index.numel()} "
            "connections are grown: return one value for each"
        )
    return values.detach().to(weight.values)


@dataclass(frozen=True)
class RandomGrowth:
    """As many connections as were dropped, uniform over the positions that are inactive after dropping
    (Mocanu et al. 2018; thesis 3, algorithm 1, line 14). A just-dropped position may be drawn again; it
    starts fresh like any other.

    Attributes:
        init: initial values: ``"zeros"``, ``"fan_in"`` (uniform +-1/sqrt(mean active fan-in)),
            ``"dense_fan_in"`` (uniform +-1/sqrt(dense fan-in)), or a function ``(weight, index, context)``.
            Zeros do well where the layer started at the scale of its sparse fan-in (``sparsify(...,
            init="rescale")``); where it kept a dense layer's small initial values, ``"fan_in"`` does better.

    >>> w = SparseWeight((2, 2), torch.tensor([0, 1]), torch.ones(2))
    >>> grown = RandomGrowth()(w, torch.tensor([1]), 1, Context("w", torch.Generator().manual_seed(0)))
    >>> bool(grown.index[0] != 1), grown.values.tolist()
    (True, [0.0])
    """

    init: str | Init = "zeros"

    def __post_init__(self) -> None:
        if isinstance(self.init, str):
            init_by_name(self.init)

    def __call__(self, weight: SparseWeight, survivors: Tensor, k: int, context: Context) -> Growth:
        """k new positions and their values.

        Raises:
            InputError: fewer than k positions are inactive.
        """
        index = random_inactive(survivors, weight.size, k, context.generator)
        return Growth(index, initial_values(self.init, weight, index, context))


random = RandomGrowth()


def check_growth(growth: Growth, weight: SparseWeight, k: int, context: Context) -> Growth:
    """``growth`` after checking what a rule promises: k sorted positions with one value each. (That none of
    them is active, ``swap`` sees.)

    Raises:
        InputError: positions unsorted, duplicated or out of range.
        MismatchError: not exactly k positions with one value each.
    """
    index = positions.check(growth.index, weight.size, name=f"positions grown in '{context.name}'")
    index = index.to(weight.index.device)
    if index.numel() != k or growth.values.shape != index.shape:
        raise MismatchError(
            f"the grow rule gave {index.numel()} positions and {tuple(growth.values.shape)} values for "
            f"'{context.name}', but {k} connections were dropped: grow as many"
        )
    return Growth(index, growth.values.detach().to(weight.values))
