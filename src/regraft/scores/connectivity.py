"""Magnitude weighted by the importance of the connection's input (thesis 1, section 10.6)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regraft.errors import InputError, unknown
from regraft.layers.modules import SparseLayer, input_units, sparse_layers
from regraft.probe import Probe
from regraft.scores.protocol import Vectors, weights_of
from regraft.signals.protocol import active_of, values_of

IMPORTANCES = ("degree", "strength")


@dataclass(frozen=True)
class Connectivity:
    """``|w_ij| * I_j ** power``, where I_j is the importance of the input j that the connection reads.

    A sparse network that evolves connects its important inputs most, so its connectivity pattern tells them:
    a weight of some size at an important input is kept before a slightly larger one at an unimportant input
    (thesis 1, future work 6). The importance is divided by its mean over the inputs of the layer that have a
    connection, so that layers compare; where all inputs are equally important the score is the magnitude.

    Attributes:
        importance: ``"degree"``: the number of the input's connections in the layer, which is the thesis's
            pattern; ``"strength"``: the sum of their magnitudes (Atashgahi et al. 2021, arXiv:2012.00560).
        power: how much it counts, 0 or more; 0 is the magnitude alone.

    Inputs of a convolution are channels. Connections that are not active do not count.

    >>> from regraft import SparseLinear, SparseWeight
    >>> index, values = torch.tensor([0, 1, 3]), torch.tensor([1.0, -1.5, 1.0])
    >>> model = SparseLinear(SparseWeight((2, 3), index, values), None)
    >>> [round(s, 3) for s in Connectivity()(model)["weight"].tolist()]
    [1.333, 1.0, 1.333]

    Raises:
        InputError: an unknown importance, or a power below 0; when called: the model has no sparse weight.
    """

    importance: str = "degree"
    power: float = 1.0

    def __post_init__(self) -> None:
        if self.importance not in IMPORTANCES:
            raise unknown("importance", self.importance, IMPORTANCES)
        if not 0.0 <= self.power < float("inf"):
            raise InputError(f"power is {self.power!r}, but must be 0 or more; 1 is usual")

    @torch.no_grad()
    def __call__(
        self,
        model: nn.Module,
        probe: Probe | None = None,
        *,
        values: Vectors | None = None,
        active: Vectors | None = None,
    ) -> dict[str, Tensor]:
        """The score of each connection, float64; the probe is not used."""
        weights, layers = weights_of(model), sparse_layers(model)
        masks = active_of(weights, active)
        found = {}
        for name, own in values_of(weights, values).items():
            layer: SparseLayer | None = layers.get(name.rpartition(".")[0])
            inputs = weights[name].input_units() if layer is None else input_units(layer)
            sizes = own.double().abs()
            counted = sizes if self.importance == "strength" else torch.ones_like(sizes)
            if masks is not None:
                counted = counted * masks[name]
            importance = torch.bincount(inputs, weights=counted).double()  # an empty count is of integers
            mean = importance[importance > 0].mean()
            share = torch.where(importance > 0, importance / mean, 0.0)
            found[name] = sizes * share[inputs] ** self.power
        return found
