"""The computation that always works: materialise the dense weight for one call by a differentiable scatter.

Any layer, any device and dtype, twice differentiable, under ``torch.func``, ``torch.compile`` and autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from regraft.weight import SparseWeight


def linear(x: Tensor, weight: SparseWeight, bias: Tensor | None) -> Tensor:
    """x W^T + b: x [..., in] -> [..., out]."""
    return F.linear(x, weight.dense(), bias)


def conv(
    x: Tensor,
    weight: SparseWeight,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """Convolution over 1, 2 or 3 spatial dimensions, as ``torch.nn.functional.conv*d``."""
    convolve: Callable[..., Tensor] = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[len(weight.shape)]
    return convolve(x, weight.dense(), bias, tuple(stride), padding, tuple(dilation), groups)
