"""What the models are made of: activations by name, and initial values drawn from a passed generator."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from regraft.errors import unknown
from regraft.layers import SparseLayer
from regraft.weight import SparseWeight

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "leaky-relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}

# variance lost in the activation, made up for by the weights before it (torch.nn.init.calculate_gain)
_GAINS = {"sigmoid": 1.0, "tanh": 5 / 3, "elu": 1.0}

INITS = ("he", "torch")
SPARSE_INITS = ("keep", "rescale")


def activation(name: str) -> nn.Module:
    """The activation called ``name``, or an error with the nearest names.

    >>> activation("tanh")
    Tanh()
    """
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


def initialise(
    model: nn.Module,
    init: str = "he",
    *,
    activation: str = "relu",
    sparse_init: str = "keep",
    generator: torch.Generator | None = None,
) -> None:
    """Draw new values for every Linear and Conv layer, dense or sparse, in place and in module order; those
    of embeddings are normal with variance 1.

    Args:
        init: ``"he"`` draws weights uniformly with variance gain^2 / fan-in, where gain^2 is 2 for ReLU (He
            et al. 2015, arXiv:1502.01852, eq. 10), and sets biases to 0; ``"torch"`` draws weights and biases
            uniformly in +-1 / sqrt(fan-in), the default of torch's layers.
        activation: the one between the layers; sets the gain.
        sparse_init: of the weights of sparse layers. ``"keep"`` counts the dense fan-in, ``"rescale"`` the
            mean number of connections per unit, as ``sparsify`` does.
        generator: the same seed gives the same values.

    >>> layer = nn.Linear(1000, 500)
    >>> initialise(layer, generator=torch.Generator().manual_seed(0))
    >>> round(layer.weight.var().item() * 1000, 1), layer.bias.abs().max().item()
    (2.0, 0.0)

    Raises:
        InputError: an unknown ``init`` or ``sparse_init``.
    """
    if init not in INITS:
        raise unknown("init", init, INITS)
    if sparse_init not in SPARSE_INITS:
        raise unknown("sparse_init", sparse_init, SPARSE_INITS)
    for module in model.modules():
        if isinstance(module, SparseLayer | nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            weight = module.weight
            fan_in = math.prod(weight.shape[1:])
            gain = _GAINS.get(activation, math.sqrt(2.0)) if init == "he" else 1 / math.sqrt(3.0)
            bound = gain * math.sqrt(3.0 / max(fan_in, 1))
            with torch.no_grad():
                if isinstance(weight, SparseWeight):
                    scale = math.sqrt(weight.size / max(weight.nnz, 1)) if sparse_init == "rescale" else 1.0
                    weight.values.uniform_(-scale * bound, scale * bound, generator=generator)
                else:
                    weight.uniform_(-bound, bound, generator=generator)
                if module.bias is not None:
                    spread = bound if init == "torch" else 0.0
                    module.bias.uniform_(-spread, spread, generator=generator)
        elif isinstance(module, nn.Embedding):
            with torch.no_grad():
                module.weight.normal_(generator=generator)
        elif not any(module.children()) and callable(getattr(module, "reset_parameters", None)):
            module.reset_parameters()  # type: ignore[operator]  # normalisation layers: ones and zeros
