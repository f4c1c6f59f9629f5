"""The methods of the papers, each one composition, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from regraft.errors import unknown
from regraft.evolve import drop as drops
from regraft.evolve.by_gradient import Gradient, InnerProduct
from regraft.evolve.context import Drop, Grow
from regraft.evolve.evolver import Evolve
from regraft.evolve.grow import Init, RandomGrowth
from regraft.schedules import Constant, Cosine, Schedule


@dataclass(frozen=True)
class Method:
    """A composition, and when its paper applies it.

    Attributes:
        drop: what goes.
        grow: what comes, given the initial values.
        rate: fraction of the connections replaced.
        every: time between updates, as the command line says it.
        until: share of the training over which the topology changes.
    """

    drop: Drop
    grow: Callable[[str | Init], Grow]
    rate: Schedule
    every: str = "epoch"
    until: float = 1.0


METHODS: dict[str, Method] = {
    # thesis 3, algorithm 1; Mocanu et al. 2018
    "set": Method(drops.signed_magnitude, RandomGrowth, Constant(0.3)),
    # thesis 1, section 7.5: the lowest magnitudes of both signs together
    "set-magnitude": Method(drops.magnitude, RandomGrowth, Constant(0.3)),
    # Evci et al. 2020: alpha 0.3, delta T 100, T_end 75 % of training
    "rigl": Method(drops.magnitude, Gradient, Cosine(0.3), "100", 0.75),
    # thesis 4, chapter 3: K 5 %, the largest |inner products|
    "search": Method(drops.magnitude, lambda init: InnerProduct(init=init), Constant(0.05)),
    # Liu et al. 2021, arXiv:2102.02887: SET that lets connections train long before it judges them (1500
    # steps of 128 on CIFAR-10), to the end of training
    "itop": Method(drops.magnitude, RandomGrowth, Cosine(0.5), "4epochs"),
    # the control: the topology stays as it was drawn
    "static": Method(drops.magnitude, RandomGrowth, Constant(0.0)),
}


def method(
    name: str,
    *,
    rate: float | str | Schedule | None = None,
    init: str | Init = "zeros",
    grow: Grow | None = None,
    every: int = 1,
    total: int | None = None,
    generator: torch.Generator | None = None,
    explore: bool = False,
) -> Evolve:
    """A published method as an ``Evolve``: ``"set"``, ``"set-magnitude"``, ``"rigl"``, ``"search"``,
    ``"itop"`` or ``"static"``.

    Args:
        rate: instead of the method's own; ``"static"`` has none and ignores it.
        init: initial values of grown connections, as in ``RandomGrowth``.
        grow: instead of the method's own, for example ``InnerProduct("svd", batches=8)``; ``init`` is then
            the rule's own.
        every, generator, explore: as in ``Evolve``.
        total: as in ``Evolve``, of the whole training; RigL stops at 75 % of it.

    >>> method("set", rate="exd", every=600).rate
    ExponentialDecay(start=0.3, interest=0.01)
    >>> method("rigl", every=100, total=10_000)
    Evolve(drop=magnitude, grow=Gradient(init='zeros', batches=1, keep_regrown=True),
           rate=Cosine(start=0.3, end=0.0), every=100, total=7500)

    Raises:
        InputError: an unknown name, with the nearest ones.
    """
    if name not in METHODS:
        raise unknown("evolution method", name, METHODS)
    chosen = METHODS[name]
    if total is not None:
        total = max(1, round(chosen.until * total))
    return Evolve(
        chosen.drop,
        chosen.grow(init) if grow is None else grow,
        chosen.rate if rate is None or name == "static" else rate,
        every=every, total=total, generator=generator, explore=explore,
    )  # fmt: skip
