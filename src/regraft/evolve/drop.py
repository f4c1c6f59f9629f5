"""Which connections go: (weight, fraction, context) -> entries.

The number dropped is ``round(fraction * n)`` (halves to even) of the n connections that a rule looks at, so
it is within half a connection of what was asked, whatever binary rounding does to the fraction.
"""

from __future__ import annotations

import torch
from torch import Tensor

from regraft import positions, select
from regraft.errors import InputError, unknown
from regraft.evolve.context import Context, Drop
from regraft.weight import SparseWeight


def count(fraction: float, n: int) -> int:
    """``round(fraction * n)``, within [0, n].

    >>> [count(0.3, n) for n in (0, 1, 10, 100)], count(0.29, 100)
    ([0, 0, 3, 30], 29)
    """
    return min(max(round(fraction * n), 0), n)


@torch.no_grad()
def magnitude(weight: SparseWeight, fraction: float, context: Context) -> Tensor:
    """The fraction of connections with the smallest ``|w|`` (thesis 1, section 7.5; Evci et al. 2020).

    Ties are decided by the generator.

    >>> w = SparseWeight((1, 4), torch.arange(4), torch.tensor([0.1, -3.0, 0.2, -0.1]))
    >>> magnitude(w, 0.5, Context("w", torch.Generator())).tolist()
    [0, 3]

    Raises:
        InputError: weights that are NaN.
    """
    return select.top(
        -weight.values.abs(), count(fraction, weight.nnz), context.generator, name=f"weight '{context.name}'"
    )


@torch.no_grad()
def signed_magnitude(weight: SparseWeight, fraction: float, context: Context) -> Tensor:
    """SET's rule: a fraction zeta of the smallest positive and zeta of the largest negative weights, hence
    those closest to zero within each sign (Mocanu et al. 2018, algorithm 1; thesis 3, algorithm 1, lines
    12-13).

    A weight that is exactly 0 (grown and not trained yet) has no sign and is closest to zero on either side:
    half of the zeros, drawn by the generator, count as negative and the rest as positive. So the number
    dropped is round(zeta * n+) + round(zeta * n-) with n+ + n- = nnz. Ties are decided by the generator.

    >>> w = SparseWeight((1, 6), torch.arange(6), torch.tensor([0.1, 0.2, 0.3, 0.4, -5.0, -7.0]))
    >>> signed_magnitude(w, 0.5, Context("w", torch.Generator())).tolist()
    [0, 1, 4]

    Raises:
        InputError: weights that are NaN.
    """
    values = weight.values.detach()
    if bool(values.isnan().any()):
        raise InputError(
            f"weight '{context.name}' has {int(values.isnan().sum())} NaN values of {weight.nnz}: training "
            "diverged before this update; lower the learning rate"
        )
    negative = values < 0
    zeros = (values == 0).nonzero().squeeze(1)
    if zeros.numel() > 1:
        half = positions.sample_ranks(zeros.numel(), zeros.numel() // 2, context.generator)
        negative[zeros[half.to(zeros.device)]] = True
    dropped = torch.zeros_like(negative)
    for side in (negative, ~negative):
        entries = side.nonzero().squeeze(1)
        smallest = select.top(
            -values[entries].abs(), count(fraction, entries.numel()), context.generator, name=context.name
        )
        dropped[entries[smallest]] = True
    return dropped.nonzero().squeeze(1)


DROPS: dict[str, Drop] = {"signed-magnitude": signed_magnitude, "magnitude": magnitude}


def by_name(name: str) -> Drop:
    """The drop rule called ``name``, or an error with the nearest names.

    >>> by_name("magnitude") is magnitude
    True
    """
    if name not in DROPS:
        raise unknown("drop rule", name, DROPS)
    return DROPS[name]
