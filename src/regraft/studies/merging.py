"""Merging trained networks by every weight rule with every bias rule, and what the merged networks do."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from torch import nn

from regraft import measure
from regraft.data import Split
from regraft.merging import RULES, merge
from regraft.studies.networks import Network
from regraft.topology import Topology
from regraft.train import seeds

WEIGHT_RULES = BIAS_RULES = tuple(RULES)


@dataclass(frozen=True)
class Merged:
    """One merged network and what it does.

    Attributes:
        parents: names of the networks merged.
        weights, biases: the rules.
        resparsified: whether it has the parents' density, else that of the union.
        accuracy: on the test samples, in [0, 1].
        loss: on the test samples.
        density: connections over positions.
        nnstd: NNSTD to each of the parents.
    """

    parents: tuple[str, ...]
    weights: str
    biases: str
    resparsified: bool
    accuracy: float
    loss: float
    density: float
    nnstd: tuple[float, ...]

    @property
    def with_itself(self) -> bool:
        """Whether a network was merged with itself."""
        return len(set(self.parents)) < len(self.parents)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "parents": list(self.parents), "nnstd": list(self.nnstd)}


def merge_by_all_rules(
    parents: Sequence[Network],
    test: Split,
    *,
    seed: int = 0,
    weights: Sequence[str] = WEIGHT_RULES,
    biases: Sequence[str] = BIAS_RULES,
    resparsify: Sequence[bool] = (False, True),
    advance: Callable[[], object] = lambda: None,
) -> list[Merged]:
    """Merge ``parents`` by each weight rule with each bias rule, before and after resparsifying.

    A merge is done once for each rule rather than for each pair of rules: weights and biases do not
    influence each other, so those of two merges are put together.

    Args:
        test: samples to evaluate on.
        seed: of the random rule.
        advance: called after each evaluation.
    """
    names = tuple(p.name for p in parents)
    topologies = [p.topology for p in parents]
    found = []
    for resparsified in resparsify:
        density = "keep" if resparsified else None

        def merged(rule: str, density: Any = density) -> nn.Module:
            return merge(
                [p.model for p in parents], rule, rule, density, generator=seeds.stream(seed, "merge")
            )

        by_rule = {rule: merged(rule) for rule in dict.fromkeys((*weights, *biases))}
        for rule in weights:
            topology = Topology.of(by_rule[rule])
            nnstd = tuple(topology.nnstd(other) for other in topologies)
            for bias_rule in biases:
                model = with_biases(by_rule[rule], by_rule[bias_rule])
                figures = measure.evaluate(model, test)
                found.append(
                    Merged(
                        names, rule, bias_rule, resparsified, figures["accuracy"], figures["loss"],
                        topology.density, nnstd,
                    )
                )  # fmt: skip
                advance()
    return found


def with_biases(model: nn.Module, other: nn.Module) -> nn.Module:
    """A copy of ``model`` with the one-dimensional parameters of ``other``, other than sparse values.

    >>> a, b = nn.Linear(2, 1), nn.Linear(2, 1)
    >>> both = with_biases(a, b)
    >>> bool((both.weight == a.weight).all() and both.bias == b.bias)
    True
    """
    new = copy.deepcopy(model)
    theirs = dict(other.named_parameters())
    for name, parameter in new.named_parameters():
        if parameter.ndim < 2 and not name.endswith(".values"):
            parameter.data = theirs[name].detach().clone()
    return new


def pairs(networks: Sequence[Network], *, with_itself: bool = False) -> list[tuple[Network, Network]]:
    """All pairs of networks; with itself too, as thesis 1 pairs them (section 7.2)."""
    pick = itertools.combinations_with_replacement if with_itself else itertools.combinations
    return list(pick(networks, 2))


def mean_grid(
    merged: Iterable[Merged],
    figure: str,
    weights: Sequence[str] = WEIGHT_RULES,
    biases: Sequence[str] = BIAS_RULES,
) -> list[list[float]]:
    """The mean of a figure such as ``"accuracy"`` for each weight rule (rows) with each bias rule."""
    cells: dict[tuple[str, str], list[float]] = {}
    for m in merged:
        cells.setdefault((m.weights, m.biases), []).append(getattr(m, figure))
    return [[fmean(cells[w, b]) for b in biases] for w in weights]


def ranking(merged: Iterable[Merged]) -> list[tuple[str, float]]:
    """Weight rules by mean accuracy over all merges and bias rules, best first."""
    by_rule: dict[str, list[float]] = {}
    for m in merged:
        by_rule.setdefault(m.weights, []).append(m.accuracy)
    means = [(rule, fmean(found)) for rule, found in by_rule.items()]
    return sorted(means, key=lambda pair: -pair[1])


def best(merged: Iterable[Merged]) -> Merged:
    """The merged network of highest accuracy; among equals the first."""
    return max(merged, key=lambda m: m.accuracy)


def nnstd_matrix(networks: Sequence[Network]) -> list[list[float]]:
    """NNSTD between all pairs of networks."""
    topologies = [n.topology for n in networks]
    return [[a.nnstd(b) for b in topologies] for a in topologies]
