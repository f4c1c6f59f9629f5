"""``WeightMatching``: units are alike where their weights are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regraft.errors import InputError
from regraft.graph import Graph
from regraft.merging.align.descent import Pair, descend, grown, unmoved
from regraft.merging.align.entries import Order, entries_of, mean
from regraft.merging.align.scale import normalised
from regraft.merging.align.together import Reference, check_reference, check_rounds, checked, moved, orders_of
from regraft.probe import Probe


@dataclass(frozen=True)
class WeightMatching:
    """Align networks by their weights (Ainsworth et al. 2022, "Git Re-Basin", arXiv:2209.04836, section 3.2).

    Sought are the orders of hidden units that bring the weights of two networks closest together, that is,
    with the largest sum over all tensors of <W_a, P W_b Q^T>. Group by group this is a linear assignment
    problem, solved exactly while the other groups keep their order. No data is needed. Biases count, and the
    scale and shift of normalisation layers, running statistics do not. Sparse weights are multiplied as they
    are; the largest dense array has one group's units squared.

    Attributes:
        restarts: descents from different starts, the one with the largest total is kept. The first starts
            from orders found group by group from the network's ends inwards, next always the group about
            which most is known; in the others chance has a say in which is next.
        max_passes: most passes over all groups of one descent.
        tolerance: a descent ends when a pass raises the total by no more than this share of it.
        to: ``"first"`` aligns each network to the first; ``"mean"`` then each to the mean of the others,
            until none moves (algorithm 3). The first network keeps its numbering either way.
        rounds: most rounds over all networks for ``to="mean"``.
        normalise: bring each network to its canonical scale first (see ``regraft.merging.align.canonical``),
            so that a layer's scale, which says nothing about what it computes, counts for nothing.

    >>> import torch
    >>> from torch import nn
    >>> from regraft import merge
    >>> a, b = (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)) for _ in range(2))
    >>> _, aligned = WeightMatching()([a, b])
    >>> x = torch.randn(5, 4)
    >>> torch.allclose(aligned(x), b(x), atol=1e-6)
    True

    Raises:
        InputError: restarts, max_passes or rounds below 1, a negative tolerance, an unknown reference; when
            called: fewer than two networks, NaN or infinite weights, a model that cannot be traced.
        MismatchError: when called: the networks differ in architecture or widths.
    """

    restarts: int = 3
    max_passes: int = 50
    tolerance: float = 1e-3
    to: Reference = "first"
    rounds: int = 20
    normalise: bool = True

    def __post_init__(self) -> None:
        for name in ("restarts", "max_passes", "rounds"):
            check_rounds(name, getattr(self, name))
        if not self.tolerance >= 0:
            raise InputError(f"tolerance is {self.tolerance!r}, but must be 0 or more")
        check_reference(self.to)

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
            probe: its batches or input_shape say what the models take, where they do not say so themselves.
            generator: the same seed gives the same result, as none does.
        """
        graph = checked(models, graph, probe)
        models = normalised(models, graph) if self.normalise else models
        return moved(models, graph, self._orders(models, graph, generator))

    def orders(
        self,
        models: Sequence[nn.Module],
        graph: Graph | None = None,
        *,
        probe: Probe | None = None,
        generator: torch.Generator | None = None,
    ) -> list[dict[str, Tensor]]:
        """For each model and each group by name, which of the model's units comes first, second, ...: int64
        [units]. ``regraft.graph.take`` puts them there. Arguments as above.

        >>> from torch import nn
        >>> a = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> [order["0"].tolist() for order in WeightMatching().orders([a, a])]
        [[0, 1, 2], [0, 1, 2]]
        """
        graph = checked(models, graph, probe)
        models = normalised(models, graph) if self.normalise else models
        return self._orders(models, graph, generator)

    def _orders(
        self, models: Sequence[nn.Module], graph: Graph, generator: torch.Generator | None
    ) -> list[dict[str, Tensor]]:
        generator = generator if generator is not None else torch.Generator().manual_seed(0)
        entries = [entries_of(model, graph, number) for number, model in enumerate(models, 1)]

        def match(number: int, others: Sequence[int], orders: Sequence[Order]) -> dict[str, Tensor]:
            reference = {
                name: mean([entries[n][name].ordered(graph, orders[n], name) for n in others])
                for name in entries[number]
            }
            return self._best(Pair(graph, reference, entries[number]), orders[number], others, generator)

        return orders_of(len(models), unmoved(graph), match, self.to, self.rounds, generator)

    def _best(
        self, pair: Pair, current: Order, others: Sequence[int], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The best of several descents; of one, from the present order, where it was found before."""
        again = [generator] * (self.restarts - 1)
        starts = [current] if len(others) > 1 else [grown(pair, chance) for chance in (None, *again)]
        found = [
            descend(pair, start, generator, max_passes=self.max_passes, tolerance=self.tolerance)
            for start in starts
        ]
        return max(found, key=lambda orders_and_total: orders_and_total[1])[0]
