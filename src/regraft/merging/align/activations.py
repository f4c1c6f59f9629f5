"""``ActivationMatching``: units are alike where they answer alike to the same data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from regraft import graph as graphs
from regraft.errors import unknown
from regraft.graph import Graph
from regraft.merging.align.descent import matched, unmoved
from regraft.merging.align.entries import Order
from regraft.merging.align.scale import normalised
from regraft.merging.align.together import Reference, check_reference, check_rounds, checked, moved, orders_of
from regraft.probe import Probe

Measure = Literal["correlation", "covariance"]


@dataclass(frozen=True)
class ActivationMatching:
    """Align networks by what their units answer to the same data (Li et al. 2015, "Convergent Learning",
    arXiv:1511.07543; Ainsworth et al. 2022, arXiv:2209.04836, section 3.1).

    Sought is, for each group of units by itself, the order that makes the sum of the correlations between
    units that meet largest: one linear assignment problem a group. Activations are taken as the next layers
    read them; each position of a map counts as a sample. Batches are passed over once, and no activation is
    kept: memory is one batch and a matrix [units, units] for each group and pair of networks.

    Attributes:
        measure: ``"correlation"``, or ``"covariance"``, in which units with large activations count more.
            A unit that answers the same to all samples has neither with any other.
        to: ``"first"`` aligns each network to the first; ``"mean"`` then each to all others together, until
            none moves. The first network keeps its numbering either way.
        rounds: most rounds over all networks for ``to="mean"``.
        normalise: bring each network to its canonical scale first (see ``normalise_scale``). Correlations do
            not change, but the weights that are merged afterwards do.

    >>> a, b = (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)) for _ in range(2))
    >>> x = torch.randn(50, 4)
    >>> _, aligned = ActivationMatching()([a, b], probe=Probe(batches=[(x, torch.zeros(50))]))
    >>> torch.allclose(aligned(x), b(x), atol=1e-6)
    True

    Raises:
        InputError: an unknown measure or reference, rounds below 1; when called: fewer than two networks, no
            batches, activations that are NaN or infinite, a model that cannot be traced.
        MismatchError: when called: the networks differ in architecture or widths.
    """

    measure: Measure = "correlation"
    to: Reference = "first"
    rounds: int = 20
    normalise: bool = True

    def __post_init__(self) -> None:
        if self.measure not in ("correlation", "covariance"):
            raise unknown("measure", self.measure, ("correlation", "covariance"))
        check_reference(self.to)
        check_rounds("rounds", self.rounds)

    def __call__(
        self,
        models: Sequence[nn.Module],
        graph: Graph | None = None,
        *,
        probe: Probe | None = None,
        generator: torch.Generator | None = None,
    ) -> list[nn.Module]:
        """Copies of the models that compute what they did, their hidden units numbered alike.

        Args:
            graph: groups of units, for models that cannot be traced.
            probe: its batches are the data; targets and loss are not looked at.
            generator: for the sequence of networks where ``to="mean"``; the same seed gives the same result.
        """
        graph = checked(models, graph, probe)
        orders = self._orders(models, graph, probe, generator)
        return moved(normalised(models, graph) if self.normalise else models, graph, orders)

    def orders(
        self,
        models: Sequence[nn.Module],
        graph: Graph | None = None,
        *,
        probe: Probe | None = None,
        generator: torch.Generator | None = None,
    ) -> list[dict[str, Tensor]]:
        """For each model and each group by name, which of the model's units comes first, second, ...: int64
        [units]. ``regraft.graph.take`` puts them there. Arguments as above."""
        return self._orders(models, checked(models, graph, probe), probe, generator)

    def _orders(
        self,
        models: Sequence[nn.Module],
        graph: Graph,
        probe: Probe | None,
        generator: torch.Generator | None,
    ) -> list[dict[str, Tensor]]:
        batches = (probe or Probe()).require_batches("activation matching")
        generator = generator if generator is not None else torch.Generator().manual_seed(0)
        count = len(models)
        pairs = [(a, b) for a in range(count) for b in range(a + 1, count) if a == 0 or self.to == "mean"]
        moments = {group.name: _Moments(pairs) for group in graph.free}
        for x, _ in batches:
            seen = [graphs.activations(model, graph, x.to(_device(model, x))) for model in models]
            for name in seen[0]:
                if name in moments:
                    moments[name].add([s[name].cpu().double() for s in seen])
        likeness = {name: m.likeness(self.measure) for name, m in moments.items() if m.samples}

        def match(number: int, others: Sequence[int], orders: Sequence[Order]) -> dict[str, Tensor]:
            order = dict(orders[number])
            for bundle in graph.bundles:
                totals = {g.name: torch.zeros(g.units, g.units, dtype=torch.float64) for g in bundle}
                for name in totals:
                    for n in others if name in likeness else ():
                        totals[name] += likeness[name][n, number][orders[n][name]]
                found = matched(bundle, {name: total.numpy() for name, total in totals.items()})
                if _sum(totals, found) > _sum(totals, order) + 1e-9 * _largest(totals):
                    order |= found
            return order

        return orders_of(count, unmoved(graph), match, self.to, self.rounds, generator)


def _sum(likeness: Mapping[str, Tensor], order: Order) -> float:
    return sum(float(each[torch.arange(len(each)), order[name]].sum()) for name, each in likeness.items())


def _largest(likeness: Mapping[str, Tensor]) -> float:
    return max(float(each.abs().max()) for each in likeness.values())


def _device(model: nn.Module, x: Tensor) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), x.device)


class _Moments:
    """Running sums over samples of the activations of one group in several networks."""

    def __init__(self, pairs: Sequence[tuple[int, int]]) -> None:
        self._pairs = pairs
        self.samples = 0
        self._origin: list[Tensor] = []
        self._sums: list[Tensor] = []
        self._squares: list[Tensor] = []
        self._products: dict[tuple[int, int], Tensor] = {}

    def add(self, activations: Sequence[Tensor]) -> None:
        """One batch, [samples, units] of each network."""
        if not self._origin:  # near the means, so that squares lose no digits
            self._origin = [a.mean(0) for a in activations]
            self._sums = [torch.zeros_like(o) for o in self._origin]
            self._squares = [torch.zeros_like(o) for o in self._origin]
            self._products = {(a, b): torch.zeros(len(self._sums[a]), len(self._sums[b])).double()
                              for a, b in self._pairs}  # fmt: skip
        centred = [a - o for a, o in zip(activations, self._origin, strict=True)]
        self.samples += len(centred[0])
        for total, squares, c in zip(self._sums, self._squares, centred, strict=True):
            total += c.sum(0)
            squares += c.square().sum(0)
        for (a, b), product in self._products.items():
            product.addmm_(centred[a].t(), centred[b])

    def likeness(self, measure: Measure) -> dict[tuple[int, int], Tensor]:
        """Covariance or correlation of each unit of one network (rows) with each of another (columns), for
        each pair in both directions; 0 for units that never change."""
        means = [s / self.samples for s in self._sums]
        stds = []
        for mean, squares, origin in zip(means, self._squares, self._origin, strict=True):
            var = squares / self.samples - mean.square()
            constant = var <= (1e-6 * (origin + mean)).square() + 1e-30  # no more than rounding in float32
            std = var.clamp(min=0).sqrt() if measure == "correlation" else torch.ones_like(var)
            stds.append(torch.where(constant, torch.inf, std))
        found = {}
        for (a, b), product in self._products.items():
            covariance = product / self.samples - torch.outer(means[a], means[b])
            found[a, b] = covariance / torch.outer(stds[a], stds[b])
            found[b, a] = found[a, b].t()
        return found
