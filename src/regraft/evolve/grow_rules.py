"""The grow rules by name."""

from __future__ import annotations

from collections.abc import Callable

from regraft.errors import unknown
from regraft.evolve.by_gradient import Gradient, InnerProduct
from regraft.evolve.context import Grow
from regraft.evolve.grow import RandomGrowth

GROWS: dict[str, Callable[..., Grow]] = {
    "random": RandomGrowth,
    "gradient": Gradient,
    "inner-product": InnerProduct,
}


def by_name(name: str) -> Grow:
    """The grow rule called ``name`` with its defaults, or an error with the nearest names.

    >>> by_name("random")
    RandomGrowth(init='zeros')
    """
    if name not in GROWS:
        raise unknown("grow rule", name, GROWS)
    return GROWS[name]()
