"""How many connections each layer gets: (shapes, density) -> connections per layer.

Every member returns exact integers: they sum to ``round(density * total size)`` (or to what epsilon asks
for), and no layer gets more connections than it has positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from regraft.errors import InputError, check_density, unknown

Shape = Sequence[int]


class Allocation(Protocol):
    """``(shapes, density) -> connections per layer``."""

    def __call__(self, shapes: Sequence[Shape], density: float) -> list[int]: ...


def uniform(shapes: Sequence[Shape], density: float) -> list[int]:
    """The same density in each layer (thesis 1, section 7.2: sparsity per layer).

    >>> uniform([(10, 10), (10, 20)], 0.1)
    [10, 20]
    """
    return _proportional(shapes, density, [1.0] * len(shapes))


def erdos_renyi(shapes: Sequence[Shape], density: float) -> list[int]:
    """Layer density proportional to (n_out + n_in) / (n_out * n_in), scaled to the wanted total density
    (Mocanu et al. 2018; thesis 3, eq. 3.1). A kernel's size plays no part (as in Evci et al. 2020,
    arXiv:1911.11134); for layers without a kernel it equals ``ErdosRenyi(epsilon)`` of that density.

    >>> erdos_renyi([(10, 10), (10, 1000)], 0.1)
    [20, 990]
    """
    return _proportional(shapes, density, [(s[0] + s[1]) / max(s[0] * s[1], 1) for s in shapes])


def erdos_renyi_kernel(shapes: Sequence[Shape], density: float) -> list[int]:
    """Layer density proportional to (n_out + n_in + k_h + k_w) / (n_out * n_in * k_h * k_w)
    (Evci et al. 2020, arXiv:1911.11134, section 3). Equals Erdos-Renyi for layers without a kernel.

    >>> sum(erdos_renyi_kernel([(16, 3, 3, 3), (32, 16, 3, 3)], 0.2)) == round(0.2 * (432 + 4608))
    True
    """
    return _proportional(shapes, density, [sum(s) / max(math.prod(s), 1) for s in shapes])


@dataclass(frozen=True)
class ErdosRenyi:
    """Erdos-Renyi by ``epsilon``: ``epsilon * (n_out + n_in)`` connections in a layer, at most all of them
    (Mocanu et al. 2018; thesis 3, eq. 3.1: p = epsilon (n_out + n_in) / (n_out n_in)).

    ``epsilon`` is a positive number, about half the mean number of connections per unit. The density
    argument is not used. For convolutions n_in counts input channels times kernel positions: the inputs that
    one output really has.

    >>> ErdosRenyi(20)([(1000, 784), (10, 1000)])
    [35680, 10000]
    """

    epsilon: float

    def __post_init__(self) -> None:
        is_number = isinstance(self.epsilon, int | float)
        if not (is_number and self.epsilon > 0 and math.isfinite(self.epsilon)):
            raise InputError(
                f"epsilon is {self.epsilon!r}, but must be a positive number; the usual one is 20"
            )

    def __call__(self, shapes: Sequence[Shape], density: float | None = None) -> list[int]:
        """Connections per layer; ``density`` is ignored."""
        sizes = [math.prod(s) for s in shapes]
        return [
            min(n, round(self.epsilon * (s[0] + math.prod(s[1:]))))
            for s, n in zip(shapes, sizes, strict=True)
        ]


ALLOCATIONS: dict[str, Allocation] = {
    "uniform": uniform,
    "erdos-renyi": erdos_renyi,
    "erdos-renyi-kernel": erdos_renyi_kernel,
}


def by_name(name: str) -> Allocation:
    """The allocation called ``name``, or an error with the nearest names.

    >>> by_name("uniform") is uniform
    True
    """
    if name not in ALLOCATIONS:
        raise unknown("allocation", name, ALLOCATIONS)
    return ALLOCATIONS[name]


def _proportional(shapes: Sequence[Shape], density: float, weights: Sequence[float]) -> list[int]:
    """Connections with layer density proportional to ``weights``, capped at 1, with the exact total.

    Layers that would exceed density 1 are filled and the rest is scaled again, until none exceeds.
    """
    check_density(density)
    sizes = [math.prod(s) for s in shapes]
    total = round(density * sum(sizes))
    full: set[int] = set()
    while True:
        free = [i for i in range(len(sizes)) if i not in full]
        rest = total - sum(sizes[i] for i in full)
        mass = sum(weights[i] * sizes[i] for i in free)
        scale = rest / mass if mass else 0.0
        over = [i for i in free if scale * weights[i] > 1.0]
        if not over:
            break
        full.update(over)
    wanted = [Fraction(n) if i in full else Fraction(scale * weights[i] * n) for i, n in enumerate(sizes)]
    return _round_to_total(wanted, sizes, total)


def _round_to_total(wanted: Sequence[Fraction], sizes: Sequence[int], total: int) -> list[int]:
    """Largest remainders: floors first, then one more where the fraction left over is largest."""
    counts = [min(math.floor(w), n) for w, n in zip(wanted, sizes, strict=True)]
    order = sorted(range(len(sizes)), key=lambda i: (counts[i] - wanted[i], i))
    missing = total - sum(counts)
    while missing > 0:
        for i in order:
            if missing > 0 and counts[i] < sizes[i]:
                counts[i] += 1
                missing -= 1
    for i in reversed(order):
        fewer = min(max(-missing, 0), counts[i])
        counts[i] -= fewer
        missing += fewer
    return counts
