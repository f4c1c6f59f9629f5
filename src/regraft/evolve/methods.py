"""The methods of the papers, each one composition, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch

from regraft.errors import unknown
from regraft.evolve import drop as drops
from regraft.evolve.context import Drop, Grow
from regraft.evolve.evolver import Evolve
from regraft.evolve.grow import Init, RandomGrowth
from regraft.schedules import Constant, Schedule

# name: (drop rule, what grows given the initial values, the rate that the paper uses)
METHODS: dict[str, tuple[Drop, Callable[[str | Init], Grow], Schedule]] = {
    # thesis 3, algorithm 1; Mocanu et al. 2018
    "set": (drops.signed_magnitude, RandomGrowth, Constant(0.3)),
    # thesis 1, section 7.5: the lowest magnitudes of both signs together
    "set-magnitude": (drops.magnitude, RandomGrowth, Constant(0.3)),
    # the control: the topology stays as it was drawn
    "static": (drops.magnitude, RandomGrowth, Constant(0.0)),
}


def method(
    name: str,
    *,
    rate: float | str | Schedule | None = None,
    init: str | Init = "zeros",
    every: int = 1,
    total: int | None = None,
    generator: torch.Generator | None = None,
) -> Evolve:
    """A published method as an ``Evolve``: ``"set"``, ``"set-magnitude"`` or ``"static"``.

    Args:
        rate: instead of the method's own; ``"static"`` has none and ignores it.
        init: initial values of grown connections, as in ``RandomGrowth``.
        every, total, generator: as in ``Evolve``.

    >>> method("set", rate="exd", every=600).rate
    ExponentialDecay(start=0.3, interest=0.01)

    Raises:
        InputError: an unknown name, with the nearest ones.
    """
    if name not in METHODS:
        raise unknown("evolution method", name, METHODS)
    drop, grow, usual = METHODS[name]
    chosen = usual if rate is None or name == "static" else rate
    return Evolve(drop, grow(init), chosen, every=every, total=total, generator=generator)
