"""Which connections go: (weight, fraction, context) -> entries.

The number dropped is ``round(fraction * n)`` (halves to even) of the n connections that a rule looks at, so
it is within half a connection of what was asked, whatever binary rounding does to the fraction.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from regraft import positions
from regraft.errors import InputError, unknown
from regraft.evolve.context import Context, Drop
from regraft.kernels.rewiring import smallest
from regraft.weight import SparseWeight


def count(fraction: float, n: int) -> int:
    """``round(fraction * n)``, within [0, n].

    >>> [count(0.3, n) for n in (0, 1, 10, 100)], count(0.29, 100)
    ([0, 0, 3, 30], 29)
    """
    return min(max(round(fraction * n), 0), n)


def magnitude(weight: SparseWeight, fraction: float, context: Context) -> Tensor:
    """The fraction of connections with the smallest ``|w|`` (thesis 1, section 7.5; Evci et al. 2020).

    Ties are decided by the generator.

    >>> w = SparseWeight((1, 4), torch.arange(4), torch.tensor([0.1, -3.0, 0.2, -0.1]))
    >>> magnitude(w, 0.5, Context("w", torch.Generator())).tolist()
    [0, 3]

    Raises:
        InputError: weights that are NaN.
    """
    values = _without_nan(weight, context)
    return smallest(values, count(fraction, weight.nnz), generator=context.generator)


@torch.no_grad()
def signed_magnitude(weight: SparseWeight, fraction: float, context: Context) -> Tensor:
    """SET's rule: a fraction zeta of the smallest positive and zeta of the largest negative weights, hence
    those closest to zero within each sign (Mocanu et al. 2018, algorithm 1; thesis 3, algorithm 1, lines
    12-13).

    A weight that is exactly 0 (grown and not trained yet) has no sign and is closest to zero on either side:
    half of the zeros count as negative and the rest as positive. So the number dropped is round(zeta * n+) +
    round(zeta * n-) with n+ + n- = nnz. Ties, and which zeros go, are decided by the generator.

    >>> w = SparseWeight((1, 6), torch.arange(6), torch.tensor([0.1, 0.2, 0.3, 0.4, -5.0, -7.0]))
    >>> signed_magnitude(w, 0.5, Context("w", torch.Generator())).tolist()
    [0, 1, 4]

    Raises:
        InputError: weights that are NaN.
    """
    values, generator = _without_nan(weight, context), context.generator
    negatives, zeros = int((values < 0).sum()), int((values == 0).sum())
    positives = weight.nnz - negatives - zeros
    below = count(fraction, negatives + zeros // 2)
    above = count(fraction, positives + zeros - zeros // 2)
    # the zeros of each side go first
    of_zeros = min(below, zeros // 2) + min(above, zeros - zeros // 2)
    below, above = below - min(below, zeros // 2), above - min(above, zeros - zeros // 2)
    lowest = smallest(values, zeros + above if above else of_zeros, 1, generator)
    if above and of_zeros < zeros:
        zero = values[lowest] == 0
        drawn = positions.sample_ranks(zeros, of_zeros, generator).to(lowest.device)
        lowest = torch.cat([lowest[~zero], lowest[zero][drawn]])
    dropped = torch.zeros(weight.nnz, dtype=torch.bool, device=values.device)
    dropped[smallest(values, below, -1, generator)] = True
    dropped[lowest] = True
    return dropped.nonzero().squeeze(1)


def _without_nan(weight: SparseWeight, context: Context) -> Tensor:
    values = weight.values.detach()
    if math.isnan(values.sum()) and bool(values.isnan().any()):  # the sum of inf and -inf is NaN too
        raise InputError(
            f"weight '{context.name}' has {int(values.isnan().sum())} NaN values of {weight.nnz}: training "
            "diverged before this update; lower the learning rate"
        )
    return values


DROPS: dict[str, Drop] = {"signed-magnitude": signed_magnitude, "magnitude": magnitude}


def by_name(name: str) -> Drop:
    """The drop rule called ``name``, or an error with the nearest names.

    >>> by_name("magnitude") is magnitude
    True
    """
    if name not in DROPS:
        raise unknown("drop rule", name, DROPS)
    return DROPS[name]
