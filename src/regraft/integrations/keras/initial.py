"""Initial values of a sparse layer by Keras's initialisers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from regraft.integrations.keras.required import keras

# what looks at no shape: as many numbers are drawn as there are connections
SHAPELESS = ("Zeros", "Ones", "RandomNormal", "RandomUniform", "TruncatedNormal")


def initial_values(
    initializer: Any, kernel_shape: Sequence[int], count: int, dtype: Any, pick: Callable[[Tensor], Tensor]
) -> Tensor:
    """Values [count] of the connections of a kernel.

    The fans of Glorot's, He's and LeCun's initialisers are counted in connections: those of the dense kernel
    times the density, so that activations start with the variance that they have in a dense layer (Evci et
    al. 2022, arXiv:2010.03533). No dense kernel is made for them. Initialisers that Keras has for matrices
    only (Orthogonal, Identity) or that are a caller's own fill one, of which the connections are kept.

    Args:
        kernel_shape: (*kernel, in, out).
        pick: a dense kernel of that shape -> its entries at the connections.
    """
    known = keras.initializers.VarianceScaling
    if isinstance(initializer, known) and type(initializer).__call__ is known.__call__:
        if getattr(initializer, "input_axes", None) is None:
            share = count / math.prod(kernel_shape) * math.prod(kernel_shape[:-2])
            inside, outside = (max(1.0, share * n) for n in kernel_shape[-2:])
            fan = {"fan_in": inside, "fan_out": outside}.get(initializer.mode, (inside + outside) / 2)
            # of a vector Keras takes the length for its fan
            initializer = known(
                initializer.scale * count / fan, "fan_in", initializer.distribution, initializer.seed
            )
            return initializer((count,), dtype=dtype)
    elif type(initializer).__name__ in SHAPELESS:
        return initializer((count,), dtype=dtype)
    return pick(initializer(tuple(kernel_shape), dtype=dtype))
