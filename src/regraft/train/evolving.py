"""How a recipe's topology changes: from its words to what is attached to the model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from regraft import evolve
from regraft.errors import InputError, unknown
from regraft.evolve import METHODS, Gradient, Grow, InnerProduct, LearnedThresholds, RandomGrowth, Shrink
from regraft.schedules import Schedule
from regraft.train import optimizers, seeds
from regraft.train.callbacks import Evolver

if TYPE_CHECKING:
    from regraft.train.recipe import Recipe

EVOLUTIONS = (*METHODS, "gmp", "dst", "none")
"""The words for how a topology changes: the methods that drop and grow; gradual magnitude pruning; learned
thresholds; nothing."""

GO_WITH: dict[str, tuple[str, ...]] = {
    "search": ("search",), "k_similar": ("search",), "metric": ("search",), "grow_samples": ("search",),
    "grow_batches": ("search", "rigl"), "alpha": ("dst",), "explore": tuple(METHODS),
}  # fmt: skip
"""Options of a recipe that go with some of the words only."""

SHRINKS_UNTIL = 0.75  # of the training: what gradual pruning leaves for the sparse network


def check(recipe: Recipe) -> None:
    """Raise InputError now, not after the data has been read, for what cannot evolve as it says."""
    word = recipe.evolution
    if word not in EVOLUTIONS:
        raise unknown("evolution method", word, EVOLUTIONS)
    for option, words in GO_WITH.items():
        if getattr(recipe, option) != getattr(type(recipe), option) and word not in words:
            known = " or ".join(repr(w) for w in words)
            raise InputError(
                f"{option} is {getattr(recipe, option)!r}, but goes with evolve {known}, not {word!r}"
            )
    if word in ("gmp", "dst"):
        _check_dense_to_sparse(recipe, word)
        return
    steps_between(every_of(recipe), 1)
    rate_of(recipe)
    RandomGrowth(recipe.grow_init)
    _grow(recipe)


def _check_dense_to_sparse(recipe: Recipe, word: str) -> None:
    for option in ("rate", "zeta"):
        if getattr(recipe, option) is not None:
            raise InputError(f"{option} says how much is replaced, but evolve {word!r} replaces nothing")
    if word == "gmp":
        if recipe.density is None:
            raise InputError("evolve 'gmp' shrinks a full network: give the density that it ends with")
        Shrink(recipe.density, total=1)
    else:
        if recipe.density is not None or recipe.epsilon is not None:
            raise InputError(
                "evolve 'dst' learns how dense each layer is: give alpha (larger is sparser) instead of a "
                "density or an epsilon"
            )
        if recipe.normalise_rows:
            raise InputError("normalise_rows scales the rows of sparse weights, but evolve 'dst' has none")
        LearnedThresholds(recipe.alpha)
    steps_between(every_of(recipe), 1)


def every_of(recipe: Recipe) -> str:
    """The time between updates, or the method's own."""
    if recipe.evolve_every is not None:
        return recipe.evolve_every
    return METHODS[recipe.evolution].every if recipe.evolution in METHODS else "epoch"


def thresholds_of(recipe: Recipe) -> LearnedThresholds:
    """The thresholds of a recipe that evolves by ``"dst"``."""
    return LearnedThresholds(recipe.alpha, include=recipe.include, exclude=recipe.exclude)


def evolver_of(
    recipe: Recipe, model: nn.Module, optimizer: torch.optim.Optimizer, epoch_steps: int, epochs: int
) -> Evolver | None:
    """What changes the topology, attached to the model; None for nothing."""
    word = recipe.evolution
    if word == "none":
        return None
    if word == "dst":
        return thresholds_of(recipe).attach(model)
    every, generator = steps_between(every_of(recipe), epoch_steps), seeds.stream(recipe.seed, "evolve")
    if word == "gmp":
        assert recipe.density is not None
        total = max(1, round(SHRINKS_UNTIL * epochs * epoch_steps))
        return Shrink(recipe.density, every=every, total=total, generator=generator).attach(model, optimizer)
    return evolve.method(
        word,
        rate=rate_of(recipe),
        init=recipe.grow_init,
        grow=_grow(recipe),
        every=every,
        total=(epochs - 1) * epoch_steps + 1,  # the last epoch is quiet (Mocanu et al. 2018)
        generator=generator,
        explore=recipe.explore,
    ).attach(model, optimizer)


def _grow(recipe: Recipe) -> Grow | None:
    """The grow rule with the recipe's options; None for the method's own."""
    common: dict[str, Any] = {"init": recipe.grow_init, "batches": recipe.grow_batches}
    if recipe.evolution == "rigl":
        return Gradient(**common)
    if recipe.evolution != "search":
        return None
    return InnerProduct(
        recipe.search, recipe.k_similar, recipe.metric, samples=recipe.grow_samples, **common
    )  # fmt: skip


def rate_of(recipe: Recipe) -> Schedule | None:
    """The recipe's evolution rate; None for the method's own.

    Raises:
        InputError: unknown name or option, or zeta out of [0, 1].
    """
    if recipe.zeta is not None and not 0.0 <= recipe.zeta <= 1.0:
        raise InputError(
            f"zeta is {recipe.zeta!r}, but must be in [0, 1]: 0.3 replaces 30 % of the connections"
        )
    if recipe.rate is not None:
        return optimizers.rate_by_name(recipe.rate, recipe.zeta)
    if recipe.zeta is None or recipe.evolution not in METHODS:
        return None
    usual: Any = type(METHODS[recipe.evolution].rate)  # the first setting of each is where it starts
    schedule: Schedule = usual(recipe.zeta)
    return schedule


def steps_between(every: str, epoch_steps: int) -> int:
    """Optimizer steps between updates of the topology.

    >>> steps_between("epoch", 600), steps_between("50epochs", 600), steps_between("100", 600)
    (600, 30000, 100)

    Raises:
        InputError: not of one of these forms.
    """
    found = re.fullmatch(r"\s*(\d*)\s*(epochs?|steps?)?\s*", every)
    if found is None or not any(found.groups()) or found[1] == "0":
        raise InputError(
            f"evolve-every is {every!r}, but must be 'epoch', a number of epochs such as '50epochs', or a "
            "number of steps such as '100'"
        )
    return int(found[1] or 1) * (epoch_steps if (found[2] or "").startswith("epoch") else 1)
