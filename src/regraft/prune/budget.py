"""How many connections each shot keeps, and where: a density path and a scope, checked at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from regraft import select
from regraft.errors import InputError
from regraft.prune import paths
from regraft.schedules import Progress
from regraft.select import Globally, PerLayer, Selection
from regraft.weight import SparseWeight

Scope = str | Callable[[float, int], Selection]
"""``"global"``, ``"layer"``, or a function ``(density, floor) -> Selection``."""


class Selections:
    """The selection of each shot: (progress) -> Selection.

    With scope ``"layer"`` each layer follows the path from its own density, otherwise all follow it together.

    Attributes:
        density, floor: as given.
        start: density of the candidates.
    """

    def __init__(
        self,
        weights: Mapping[str, SparseWeight],
        density: float,
        path: str | paths.Path,
        scope: Scope,
        floor: int,
    ) -> None:
        """Check that the wanted density can be reached.

        Raises:
            InputError: unknown path or scope, fewer candidates than the density asks for, fewer connections
                than layers, or a floor that needs more connections than there are.
        """
        self.density, self.floor = density, floor
        self._path = paths.by_name(path) if isinstance(path, str) else path
        self.start = sum(w.nnz for w in weights.values()) / sum(w.size for w in weights.values())
        self._starts = {name: w.density for name, w in weights.items()}
        if isinstance(scope, Globally | PerLayer):
            raise InputError(
                f"scope is {scope!r}, which has a density of its own: pass scope={type(scope).__name__} and "
                "density="
            )
        self._kind = select.by_name(scope) if isinstance(scope, str) else scope
        if self._kind is PerLayer:
            _check_layers(weights, density, floor)
        elif self._kind is Globally:
            _check_total(weights, density, floor)

    def density_at(self, progress: Progress) -> float:
        """Density over all layers together that the shot aims at."""
        return self._path(self.start, self.density, progress)

    def __call__(self, progress: Progress) -> Selection:
        """The selection of this shot."""
        if self._kind is PerLayer:
            aims = {n: self._path(start, self.density, progress) for n, start in self._starts.items()}
            return PerLayer(aims, self.floor)
        return self._kind(self.density_at(progress), self.floor)


def check_count(value: int, name: str) -> int:
    """``value`` if it is a whole number of 1 or more, else an InputError.

    >>> check_count(3, "shots")
    3
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value!r}, but must be a whole number of 1 or more")
    return value


def _check_total(weights: Mapping[str, SparseWeight], density: float, floor: int) -> None:
    size, nnz = sum(w.size for w in weights.values()), sum(w.nnz for w in weights.values())
    k = round(density * size)
    if k > nnz:
        raise InputError(
            f"density {density:g} asks for {k} of {size} positions, but only {nnz} connections are there to "
            f"choose from: take a density of at most {nnz / size:g}"
        )
    if k < len(weights):
        raise InputError(
            f"density {density:g} keeps {k} of {size} connections, too few for {len(weights)} layers: take a "
            f"density of at least {len(weights) / size:.2g}"
        )
    secured = sum(min(floor, w.nnz) for w in weights.values())
    if secured > k:
        raise InputError(
            f"a floor of {floor} connections in each of {len(weights)} layers needs {secured}, but density "
            f"{density:g} keeps {k}: lower the floor or raise the density"
        )


def _check_layers(weights: Mapping[str, SparseWeight], density: float, floor: int) -> None:
    for name, weight in weights.items():
        k = round(density * weight.size)
        if k > weight.nnz:
            raise InputError(
                f"density {density:g} asks for {k} of the {weight.size} positions of '{name}', but only "
                f"{weight.nnz} connections are there to choose from: take a density of at most "
                f"{weight.density:g}, or scope='global'"
            )
        if max(k, min(floor, weight.nnz)) == 0:
            raise InputError(
                f"'{name}' of shape {tuple(weight.shape)} would keep no connection at density {density:g}: "
                "raise the density, set floor=1, choose scope='global', or exclude the layer"
            )
