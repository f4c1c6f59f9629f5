"""Figures of the merging studies: means over pairs as thesis 1 takes them, one value for each network.

Thesis 1 pairs 20 networks with each other and with themselves: of 210 pairs 20 are of one network. With fewer
networks such pairs would weigh more, and they flatter the means. So they get the weight here that they have
there: the value of network i is 2/21 of its pair with itself and 19/21 of the mean over its other pairs, and
the mean over networks is, at 20 networks, exactly that over all pairs.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, TypedDict, Unpack

from regraft.merging import RULES
from regraft.studies.study import Rows

WITH_ITSELF = 2 / 21
KEEPING = ("magnitude", "average", "addition", "random")
"""The weight rules that keep weights; ``nothing`` is left out of what is said about bias rules."""
ALL = tuple(RULES)

Key = tuple[Any, Any]
"""Sparsity and seed of a network."""


@functools.lru_cache(maxsize=8)
def _merged(rows: Rows) -> Mapping[tuple[Any, ...], list[dict[str, Any]]]:
    """The rows of merged pairs by what was done, sparsity, weight rule and bias rule."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for r in rows.rows:
        if r.get("kind") == "merged" and "a" in r:
            how = (r.get("align", "none"), r.get("networks", 2), r["then"])
            key = (*how, r["sparsity"], r["weights"], r["biases"])
            found.setdefault(key, []).append(r)
    return found


@functools.lru_cache(maxsize=8)
def sparsities(rows: Rows) -> tuple[float, ...]:
    """Those of merged pairs, increasing."""
    return tuple(sorted({key[3] for key in _merged(rows)}))


class How(TypedDict, total=False):
    """Which merges: what was done after merging, how the networks were aligned before, and how many."""

    then: str
    align: str
    networks: int


def pairs(rows: Rows, weights: str, biases: str, sparsity: float, **how: Unpack[How]) -> list[dict[str, Any]]:
    """The rows of one pair of rules at one sparsity, one for each pair (or group) of networks; by default
    pruned, not aligned, of two networks."""
    chosen = (how.get("align", "none"), how.get("networks", 2), how.get("then", "prune"))
    return _merged(rows).get((*chosen, sparsity, weights, biases), [])


def by_network(
    rows: Rows,
    weights: str,
    biases: str,
    sparsity: float,
    *,
    figure: str = "accuracy",
    **how: Unpack[How],
) -> dict[int, float]:
    """One value for each network: the mean over its pairs, with itself weighted as in the thesis."""
    own: dict[int, float] = {}
    others: dict[int, list[float]] = {}
    for r in pairs(rows, weights, biases, sparsity, **how):
        if r["a"] == r["b"]:
            own[r["a"]] = r[figure]
        else:
            others.setdefault(r["a"], []).append(r[figure])
            others.setdefault(r["b"], []).append(r[figure])
    found = {}
    for seed in sorted({*own, *others}):
        mean = fmean(others[seed]) if seed in others else None
        if seed not in own:
            found[seed] = mean
        else:
            found[seed] = own[seed] if mean is None else WITH_ITSELF * own[seed] + (1 - WITH_ITSELF) * mean
    return {seed: v for seed, v in found.items() if v is not None}


def samples(
    rows: Rows,
    weights: str | Sequence[str] = KEEPING,
    biases: str | Sequence[str] = ALL,
    at: Sequence[float] | None = None,
    *,
    figure: str = "accuracy",
    scale: float = 100.0,
    **how: Unpack[How],
) -> dict[Key, float]:
    """One value for each network: its mean over these rules, times ``scale`` (percent).

    Args:
        at: sparsities; those of them that were measured, by default all.
    """
    found = {}
    for sparsity in sparsities(rows):
        if at is not None and sparsity not in at:
            continue
        parts = [
            by_network(rows, w, b, sparsity, figure=figure, **how)
            for w in _names(weights)
            for b in _names(biases)
        ]
        for seed in parts[0] if parts else ():
            found[sparsity, seed] = scale * fmean(part[seed] for part in parts)
    return found


def means(values: Mapping[Key, float]) -> list[float]:
    """The mean over networks at each sparsity: all sparsities count alike."""
    by_sparsity: dict[Any, list[float]] = {}
    for (sparsity, _), value in values.items():
        by_sparsity.setdefault(sparsity, []).append(value)
    return [fmean(found) for _, found in sorted(by_sparsity.items())]


def less(a: Mapping[Key, float], b: Mapping[Key, float]) -> list[float]:
    """The mean of a - b at each sparsity."""
    return means({key: a[key] - b[key] for key in a if key in b})


def grid(
    rows: Rows, figure: str, *, scale: float = 100.0, **how: Unpack[How]
) -> dict[tuple[str, str], float]:
    """The mean over sparsities of each weight rule with each bias rule, as in figure 13."""
    found = {}
    for w in ALL:
        for b in ALL:
            values = samples(rows, w, b, figure=figure, scale=scale, **how)
            if values:
                found[w, b] = fmean(means(values))
    return found


def parents(rows: Rows, figure: str = "accuracy", at: Sequence[float] | None = None) -> dict[Key, float]:
    """A figure of each parent; those that have it."""
    return {
        (r["sparsity"], r["seed"]): r[figure]
        for r in rows.rows
        if r.get("kind") == "parent" and r.get(figure) is not None and (at is None or r["sparsity"] in at)
    }


def scaled(values: Mapping[Key, float], factor: float = 100.0) -> dict[Key, float]:
    """All values times ``factor``."""
    return {key: factor * v for key, v in values.items()}


def _names(names: str | Sequence[str]) -> Sequence[str]:
    return (names,) if isinstance(names, str) else names
