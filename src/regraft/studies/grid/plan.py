"""What a grid asks for: settings that stand, settings that vary, seeds."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from regraft.allocate import ALLOCATIONS
from regraft.data.catalogue import canonical
from regraft.errors import InputError, MismatchError, check_density, unknown
from regraft.models import INITS, resolve
from regraft.models.parts import SPARSE_INITS
from regraft.models.spec import check_probability
from regraft.studies.grid.options import DATA
from regraft.train import Recipe

Point = tuple[tuple[str, Any], ...]
"""Names and values of what varies, at one place of the grid."""


@dataclass(frozen=True)
class Plan:
    """A grid at one preset.

    Attributes:
        base: options that stand, by name.
        grid: options that vary, each with its values.
        seeds: one training each at every point.
    """

    base: Mapping[str, Any]
    grid: Mapping[str, Sequence[Any]]
    seeds: Sequence[int]

    def points(self) -> list[Point]:
        """All combinations, the last option varying fastest.

        >>> Plan({}, {"density": [0.1, 0.5], "evolve": ["set", "rigl"]}, [0]).points()[1]
        (('density', 0.1), ('evolve', 'rigl'))
        """
        return [tuple(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())]

    def data(self) -> set[str]:
        """The sets that it needs."""
        found = self.grid.get("data", [self.base.get("data", DATA["data"])])
        return {canonical(name) or name for name in found}

    def plain(self) -> dict[str, Any]:
        """As the settings of a preset."""
        return {
            "base": dict(self.base),
            "grid": {k: list(v) for k, v in self.grid.items()},
            "seeds": list(self.seeds),
        }


def recipe_of(options: Mapping[str, Any], seed: int) -> Recipe:
    """The training that options say.

    Raises:
        InputError: values that cannot be used, or not together.
    """
    return Recipe(**{k: v for k, v in options.items() if k not in DATA}, seed=seed)


def check_options(options: Mapping[str, Any]) -> None:
    """Raise InputError for what cannot be trained, as far as that is known without the data."""
    recipe = recipe_of(options, 0)
    if recipe.density is not None:
        check_density(recipe.density)
    if recipe.epsilon is not None and not recipe.epsilon > 0:
        raise InputError(f"epsilon is {recipe.epsilon!r}, but must be above 0: 20 is usual")
    check_probability(recipe.dropout)
    for name, value, known in (
        ("allocate", recipe.allocate, ALLOCATIONS), ("init", recipe.init, INITS),
        ("sparse_init", recipe.sparse_init, SPARSE_INITS),
    ):  # fmt: skip
        if value not in known:
            raise unknown(name, value, known)
    with contextlib.suppress(MismatchError):  # the data may have another shape
        resolve(
            recipe.model, input_shape=(1, 28, 28), classes=10, dropout=recipe.dropout,
            activation=recipe.activation,
        )  # fmt: skip


def config_of(options: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A cell's configuration: every choice by name, defaults filled in, as plain values.

    Raises:
        InputError: values that cannot be used, or not together.
    """
    chosen = {name: options.get(name, default) for name, default in DATA.items()}
    whole = chosen | recipe_of(options, seed).resolved()
    return {k: list(v) if isinstance(v, tuple) else v for k, v in whole.items()}
