"""Which sparse layers hand their output on feature-major.

A [batch, features] tensor with strides (1, batch) is what kernels gather from, and elementwise operations
keep it: from one sparse layer to the next it needs no copy. Dense layers and normalisations are slow on it.
So a layer hands it on exactly where the next consumer is known to be a sparse layer.
"""

from __future__ import annotations

from torch import nn

from regraft.weight import SparseWeight

ELEMENTWISE = (
    nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus,
    nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid, nn.Softsign, nn.Dropout,
    nn.Identity,
)  # fmt: skip

_MARK = "_hands_on_feature_major"


def of(weight: SparseWeight) -> bool | None:
    """Whether the layer's output is feature-major; None where nothing is known: as its input is."""
    mark: bool | None = weight.__dict__.get(_MARK)
    return mark


def hand_on(weight: SparseWeight, feature_major: bool | None) -> None:
    """Say how the layer's output is laid out; for models whose order only their own framework knows."""
    weight.__dict__[_MARK] = feature_major


def _sparse_weight(module: nn.Module) -> SparseWeight | None:
    weight = getattr(module, "weight", None)
    return weight if isinstance(weight, SparseWeight) and len(weight.shape) == 2 else None


def chain(model: nn.Module) -> int:
    """Let sparse linear layers hand their output on feature-major to the next one.

    It looks at each ``nn.Sequential`` in ``model`` and changes only how activations lie in memory, never
    their values beyond rounding. :func:`regraft.sparsify` calls it.

    Returns:
        the number of layers that do so.

    >>> from regraft import sparsify
    >>> chain(sparsify(nn.Sequential(nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU()), density=0.3))
    1
    """
    found = 0
    for sequence in model.modules():
        if type(sequence) is not nn.Sequential:
            continue
        modules = list(sequence)
        for i, module in enumerate(modules):
            weight = _sparse_weight(module)
            if weight is None:
                continue
            rest = (m for m in modules[i + 1 :] if type(m) not in ELEMENTWISE)
            follower = next(rest, None)
            mark = follower is not None and _sparse_weight(follower) is not None
            hand_on(weight, mark)
            found += mark
    return found
