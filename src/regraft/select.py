"""Which entries stay: (scores, budget) -> kept entries, with exact counts.

Counts are exact because entries are chosen by index, not by comparing with a threshold. Equal scores are
decided by a second score where one is given, then by the generator; never by position, which would favour
the first layers and rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from regraft import positions
from regraft.errors import InputError, MismatchError, check_density, unknown

Scores = Mapping[str, Tensor]


def top(
    scores: Tensor,
    k: int,
    generator: torch.Generator | None = None,
    *,
    ties: Tensor | None = None,
    name: str = "scores",
) -> Tensor:
    """Indices of the k largest of ``scores`` [n], increasing, int64 [k].

    Args:
        scores: numbers of any type; infinities are allowed.
        k: how many, in [0, n].
        generator: decides among equal scores, each choice equally likely. Without one a generator with seed
            0 does, so that the call always gives the same result.
        ties: a second score [n], for example magnitudes, that decides among equal ones first.
        name: how errors call the scores.

    >>> top(torch.tensor([0.1, 3.0, -1.0, 2.0]), 2).tolist()
    [1, 3]
    >>> top(torch.tensor([1.0, 1.0, 1.0]), 1, ties=torch.tensor([0.0, 5.0, 2.0])).tolist()
    [1]

    Raises:
        InputError: NaN among the scores, not a vector, or k outside [0, n].
    """
    scores = _checked(scores, name)
    n = scores.numel()
    if not 0 <= k <= n:
        raise InputError(f"cannot keep {k} of the {n} entries of {name}")
    if k == 0 or k == n:
        return torch.arange(k, device=scores.device)
    threshold = torch.kthvalue(scores, n - k + 1).values
    kept = scores > threshold
    tied = (scores == threshold).nonzero().squeeze(1)
    missing = k - int(kept.sum())
    if missing < tied.numel():
        tied = tied[_among_equals(tied, missing, generator, ties, name)]
    kept[tied] = True
    return kept.nonzero().squeeze(1)


def _among_equals(
    tied: Tensor, k: int, generator: torch.Generator | None, ties: Tensor | None, name: str
) -> Tensor:
    if ties is not None:
        return top(ties[tied], k, generator, name=f"the tie-breaking scores of {name}")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    return positions.sample_ranks(tied.numel(), k, generator).to(tied.device)


def per_layer(
    scores: Scores,
    counts: Mapping[str, int],
    *,
    generator: torch.Generator | None = None,
    ties: Scores | None = None,
) -> dict[str, Tensor]:
    """The ``counts[name]`` largest entries of each vector: {name: increasing indices into the vector}.

    Entries with score -inf are never kept: that is how a score says that an entry is out.

    Raises:
        InputError: NaN scores, or fewer candidates than the count asks for.
        MismatchError: scores and counts name different layers.
    """
    _same_names(scores, counts, "counts")
    kept = {}
    for name, vector in scores.items():
        available = _candidates(vector, name)
        if counts[name] > available:
            raise InputError(
                f"'{name}' should keep {counts[name]} entries, but only {available} have a score above -inf"
            )
        kept[name] = top(
            vector, counts[name], generator, ties=None if ties is None else ties[name], name=f"'{name}'"
        )
    return kept


def globally(
    scores: Scores,
    k: int,
    *,
    floor: int = 0,
    generator: torch.Generator | None = None,
    ties: Scores | None = None,
) -> dict[str, Tensor]:
    """The k largest entries over all vectors together: {name: increasing indices into the vector}.

    Args:
        scores: {name: [n]}; entries with score -inf are never kept.
        k: exact number of entries kept in all.
        floor: entries that each layer keeps at least (its best ones; all of them if it has fewer), so that no
            layer dies.
        generator, ties: as in ``top``.

    >>> scores = {"a": torch.tensor([9.0, 8.0, 7.0]), "b": torch.tensor([1.0, 2.0])}
    >>> {n: i.tolist() for n, i in globally(scores, 2).items()}
    {'a': [0, 1], 'b': []}
    >>> {n: i.tolist() for n, i in globally(scores, 2, floor=1).items()}
    {'a': [0], 'b': [1]}

    Raises:
        InputError: NaN scores, fewer than k candidates, or floors that need more than k entries.
    """
    _check_floor(floor)
    available = {name: _candidates(vector, name) for name, vector in scores.items()}
    if not 0 <= k <= sum(available.values()):
        raise InputError(f"cannot keep {k} entries in all: {sum(available.values())} have a score above -inf")
    floors = {name: min(floor, n) for name, n in available.items()}
    if sum(floors.values()) > k:
        raise InputError(
            f"a floor of {floor} entries in each of {len(scores)} layers needs {sum(floors.values())}, "
            f"but only {k} may be kept: lower the floor or raise the density"
        )
    secured = per_layer(scores, floors, generator=generator, ties=ties)
    flat, tie = _flatten(scores), None if ties is None else _flatten({n: ties[n] for n in scores})
    chosen = torch.zeros(flat.numel(), dtype=torch.bool, device=flat.device)
    sizes = [v.numel() for v in scores.values()]
    for part, name in zip(torch.split(chosen, sizes), scores, strict=True):
        part[secured[name].to(part.device)] = True
    rest = (~chosen).nonzero().squeeze(1)
    more = top(
        flat[rest],
        k - int(chosen.sum()),
        generator,
        ties=None if tie is None else tie[rest],
        name="all layers",
    )
    chosen[rest[more]] = True
    return {
        name: part.nonzero().squeeze(1).to(vector.device)
        for part, (name, vector) in zip(torch.split(chosen, sizes), scores.items(), strict=True)
    }


class Selection(Protocol):
    """``(scores, sizes) -> {name: indices of the kept entries}``."""

    def __call__(
        self,
        scores: Scores,
        sizes: Mapping[str, int],
        *,
        generator: torch.Generator | None = None,
        ties: Scores | None = None,
    ) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Globally:
    """Keep the best ``round(density * total size)`` entries of all layers together.

    Attributes:
        density: share of all *positions* (not of the scored entries) that stays, in (0, 1].
        floor: entries that each layer keeps at least, an integer >= 0.

    >>> scores = {"a": torch.tensor([9.0, 8.0]), "b": torch.tensor([1.0, 2.0])}
    >>> {n: i.tolist() for n, i in Globally(0.2)(scores, {"a": 5, "b": 5}).items()}
    {'a': [0, 1], 'b': []}
    """

    density: float
    floor: int = 0

    def __post_init__(self) -> None:
        check_density(self.density)
        _check_floor(self.floor)

    def __call__(
        self,
        scores: Scores,
        sizes: Mapping[str, int],
        *,
        generator: torch.Generator | None = None,
        ties: Scores | None = None,
    ) -> dict[str, Tensor]:
        """Kept entries of each layer; ``sizes`` are the numbers of positions, active or not."""
        _same_names(scores, sizes, "sizes")
        k = round(self.density * sum(sizes.values()))
        return globally(scores, k, floor=self.floor, generator=generator, ties=ties)


@dataclass(frozen=True)
class PerLayer:
    """Keep the best ``round(density * size)`` entries of each layer.

    Attributes:
        density: share of the layer's *positions* that stays, in (0, 1]: one number, or one per layer name.
        floor: entries that each layer keeps at least (all of them if it has fewer), an integer >= 0.

    >>> scores = {"a": torch.tensor([9.0, 8.0]), "b": torch.tensor([1.0, 2.0])}
    >>> {n: i.tolist() for n, i in PerLayer(0.2)(scores, {"a": 5, "b": 5}).items()}
    {'a': [0], 'b': [1]}
    """

    density: float | Mapping[str, float]
    floor: int = 0

    def __post_init__(self) -> None:
        densities = self.density.values() if isinstance(self.density, Mapping) else [self.density]
        for density in densities:
            check_density(density)
        _check_floor(self.floor)

    def __call__(
        self,
        scores: Scores,
        sizes: Mapping[str, int],
        *,
        generator: torch.Generator | None = None,
        ties: Scores | None = None,
    ) -> dict[str, Tensor]:
        """Kept entries of each layer; ``sizes`` are the numbers of positions, active or not."""
        _same_names(scores, sizes, "sizes")
        if isinstance(self.density, Mapping):
            _same_names(scores, self.density, "density")
        counts = {}
        for name, vector in scores.items():
            density = self.density[name] if isinstance(self.density, Mapping) else self.density
            counts[name] = max(round(density * sizes[name]), min(self.floor, _candidates(vector, name)))
        return per_layer(scores, counts, generator=generator, ties=ties)


SELECTIONS: dict[str, type[Globally] | type[PerLayer]] = {"global": Globally, "layer": PerLayer}


def by_name(name: str) -> type[Globally] | type[PerLayer]:
    """The kind of selection called ``name``, or an error with the nearest names.

    >>> by_name("global")(0.1)
    Globally(density=0.1, floor=0)
    """
    if name not in SELECTIONS:
        raise unknown("selection", name, SELECTIONS)
    return SELECTIONS[name]


def _check_floor(floor: int) -> None:
    if floor < 0:
        raise InputError(f"floor is {floor}, but must be 0 or more entries per layer")


def _checked(scores: Tensor, name: str) -> Tensor:
    """``scores`` as a vector that can be compared: no NaN, and of a type that torch can select in."""
    if scores.ndim != 1:
        raise InputError(f"{name} has shape {tuple(scores.shape)}, but scores must be a vector")
    scores = scores.detach()
    if scores.dtype == torch.bool:
        return scores.to(torch.uint8)
    if scores.is_floating_point() and bool(scores.isnan().any()):
        count = int(scores.isnan().sum())
        raise InputError(
            f"{name}: {count} of {scores.numel()} scores are NaN, so they cannot be ranked: look for a "
            "training run that diverged, or an input that is not finite"
        )
    return scores


def _candidates(vector: Tensor, name: str) -> int:
    """Number of entries that may be kept."""
    return int((_checked(vector, f"'{name}'") > -torch.inf).sum())


def _flatten(scores: Scores) -> Tensor:
    """All vectors in one, on the first one's device."""
    vectors = [_checked(v, f"'{n}'") for n, v in scores.items()]
    return torch.cat([v.to(vectors[0].device) for v in vectors]) if vectors else torch.empty(0)


def _same_names(scores: Scores, other: Mapping[str, object], what: str) -> None:
    if set(scores) != set(other):
        odd = sorted(set(scores) ^ set(other))
        raise MismatchError(f"scores and {what} name different layers: {odd} are in only one of them")
