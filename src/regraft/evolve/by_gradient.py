"""Growing where the loss has the steepest slope: by the dense gradient (RigL), or by searching for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regraft import positions
from regraft.errors import InputError, unknown
from regraft.evolve.capture import columns, dense_gradient
from regraft.evolve.context import Context, Growth
from regraft.evolve.grow import Init, init_by_name, initial_values
from regraft.kernels.rewiring import random_inactive
from regraft.layers import SparseLayer
from regraft.layers.modules import SparseConv
from regraft.search import METRICS, Found, Metric, Search, by_name
from regraft.weight import SparseWeight


@dataclass(frozen=True)
class Gradient:
    """RigL's rule: the inactive positions with the largest ``|dL/dw|`` (Evci et al. 2020, arXiv:1911.11134).

    The reference: it computes the dense gradient of one layer after the other, ``size`` numbers at a time.
    A just-dropped connection that is found again keeps its value and optimizer state, as in RigL's code.

    Attributes:
        init: initial values, as in ``RandomGrowth``; RigL's are zeros.
        batches: the gradient is summed over so many steps before the update, 1 or more.
        keep_regrown: False to let connections that are dropped and found again start fresh.

    >>> from regraft import SparseLinear
    >>> layer = SparseLinear(SparseWeight((2, 2), torch.tensor([0]), torch.ones(1)), None)
    >>> x, dz = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -5.0]])
    >>> context = Context("weight", torch.Generator(), layer=layer, captured=[(x, dz)])
    >>> Gradient()(layer.weight, layer.weight.index, 1, context).index.tolist()
    [3]

    Raises:
        InputError: unknown ``init``; ``batches`` below 1.
    """

    init: str | Init = "zeros"
    batches: int = 1
    keep_regrown: bool = True

    def __post_init__(self) -> None:
        _check(self.init, self.batches)

    def keep(
        self, layer: SparseLayer, x: Tensor, dz: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The layer's input and the gradient of its output, as they are."""
        return x, dz

    def __call__(self, weight: SparseWeight, survivors: Tensor, k: int, context: Context) -> Growth:
        """The k positions and their values.

        Raises:
            InputError: nothing was captured for this layer; a gradient that is not finite; fewer than k
                positions are inactive.
        """
        layer, captured = required(context, "Gradient")
        check_room(weight, survivors, k)
        steepness = dense_gradient(layer, *captured[0]).reshape(-1)
        for x, dz in captured[1:]:
            steepness += dense_gradient(layer, x, dz).reshape(-1)
        steepness.abs_()
        _check_finite(steepness, context)
        steepness[survivors] = -1.0
        index = torch.topk(steepness, k, sorted=False).indices.sort().values
        return Growth(index, initial_values(self.init, weight, index, context))


def _check(init: str | Init, batches: int) -> None:
    if isinstance(init, str):
        init_by_name(init)
    if isinstance(batches, bool) or not isinstance(batches, int) or batches < 1:
        raise InputError(f"batches is {batches!r}, but must be a whole number of 1 or more steps")


def required(context: Context, user: str) -> tuple[SparseLayer, list[tuple[Tensor, Tensor]]]:
    """The layer, and what was captured of it, or an InputError that says what to do."""
    if context.layer is None or not context.captured:
        raise InputError(
            f"{user} has seen no gradient of '{context.name}': run the forward and backward pass before the "
            "update within `with evolver.watch():`, or pass evolver.step(Probe(loss=..., batches=...)); a "
            "layer that the loss does not depend on must be left out by exclude="
        )
    return context.layer, list(context.captured)


def check_room(weight: SparseWeight, survivors: Tensor, k: int) -> None:
    """Raise InputError where fewer than k positions are inactive."""
    absent = weight.size - survivors.numel()
    if k > absent:
        raise InputError(
            f"cannot grow {k} connections: only {absent} of {weight.size} positions are inactive; grow fewer"
        )


def _check_finite(numbers: Tensor, context: Context) -> None:
    if not bool(torch.isfinite(numbers).all()):
        raise InputError(
            f"the gradient of '{context.name}' is NaN or infinite: training diverged before this update; "
            "lower the learning rate"
        )


@dataclass(frozen=True)
class InnerProduct:
    """The same connections without the dense gradient: a search for the largest inner products (thesis 4,
    chapter 3).

    ``dL/dw_ij = sum_b dz_ib x_jb``: the gradient of a connection is the inner product of what flowed through
    its two ends, the gradient dz of an output unit and the activation x of an input unit over the samples.
    With the exact search and all samples it grows what ``Gradient`` grows, in O(k) memory. A convolution's
    inputs are patches: [channels * kernel, samples * output positions], searched group by group.

    Where the search finds no more products that are not zero, the rest is grown at random.

    Attributes:
        search: a name of ``regraft.search.SEARCHES`` or a function ``(rows, columns, k, exclude, *, metric)
            -> Found``; the default finds exactly the largest.
        k_similar: of searches by neighbours (faiss, hnswlib, nmslib, lsh), neighbours of each output unit as
            a fraction of the input units, in (0, 1]; None for theirs (0.15). Needs a name.
        metric: ``"abs"`` (``|dL/dw|``), ``"ip"`` or ``"l2"``; the thesis finds abs best.
        init: initial values, as in ``RandomGrowth``.
        batches: minibatches before the update that are looked at, 1 or more; several smooth the choice.
        samples: look at so many of a minibatch's samples at most, drawn at random, or None for all. For a
            convolution each position of the output is one, for a sequence each step.
        keep_regrown: False to let connections that are dropped and found again start fresh.

    >>> from regraft import SparseLinear
    >>> layer = SparseLinear(SparseWeight((2, 2), torch.tensor([0]), torch.ones(1)), None)
    >>> x, dz = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -5.0]])
    >>> rule, g = InnerProduct(), torch.Generator()
    >>> context = Context("weight", g, layer=layer, captured=[rule.keep(layer, x, dz, g)])
    >>> rule(layer.weight, layer.weight.index, 1, context).index.tolist()
    [3]

    Raises:
        InputError: an unknown search, metric or ``init``; ``batches`` or ``samples`` below 1; ``k_similar``
            out of range, or for a search that has none.
    """

    search: str | Search = "exact"
    k_similar: float | None = None
    metric: Metric = "abs"
    init: str | Init = "zeros"
    batches: int = 1
    samples: int | None = 4096
    keep_regrown: bool = True

    def __post_init__(self) -> None:
        _check(self.init, self.batches)
        if self.metric not in METRICS:
            raise unknown("metric", self.metric, METRICS)
        if self.samples is not None and (isinstance(self.samples, bool) or self.samples < 1):
            raise InputError(f"samples is {self.samples!r}, but must be 1 or more, or None for all")
        if self.k_similar is not None and not isinstance(self.search, str):
            raise InputError("k_similar goes with the name of a search: give it to the search itself instead")
        self._search()

    def _search(self) -> Search:
        return by_name(self.search, self.k_similar) if isinstance(self.search, str) else self.search

    def keep(
        self, layer: SparseLayer, x: Tensor, dz: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Output gradients [out, B] and inputs or patches [in, B]."""
        return columns(layer, x, dz, self.samples, generator)

    def __call__(self, weight: SparseWeight, survivors: Tensor, k: int, context: Context) -> Growth:
        """The k positions and their values.

        Raises:
            InputError: nothing was captured for this layer; a gradient that is not finite; fewer than k
                positions are inactive.
            MissingDependency: a search whose extra is not installed.
        """
        layer, captured = required(context, "InnerProduct")
        check_room(weight, survivors, k)
        try:
            index = self._nonzero(self._find(layer, captured, survivors, k))
        except InputError as error:
            raise InputError(f"growing '{context.name}': {error}") from error
        if index.numel() < k:
            taken = positions.union(survivors, index)
            more = random_inactive(taken, weight.size, k - index.numel(), context.generator)
            index = torch.cat([index, more.to(index)]).sort().values
        return Growth(index, initial_values(self.init, weight, index, context))

    def _nonzero(self, found: Found) -> Tensor:
        whole = self.metric != "abs" or bool(found.products.all())
        return found.index if whole else found.index[found.products != 0]

    def _find(
        self, layer: SparseLayer, captured: list[tuple[Tensor, Tensor]], survivors: Tensor, k: int
    ) -> Found:
        rows, cols = captured[0]
        if len(captured) > 1:
            rows, cols = (torch.cat(side, dim=1) for side in zip(*captured, strict=True))
        groups = layer.groups if isinstance(layer, SparseConv) else 1
        if groups == 1:
            return self._search()(rows, cols, k, survivors, metric=self.metric)
        return self._find_in_groups(rows, cols, survivors, k, groups)

    def _find_in_groups(self, rows: Tensor, cols: Tensor, survivors: Tensor, k: int, groups: int) -> Found:
        """The best k of the best k of each group, whose outputs see only its inputs."""
        indices, products, keys = [], [], []
        size = rows.shape[0] // groups * (cols.shape[0] // groups)
        for group, (r, c) in enumerate(zip(rows.chunk(groups), cols.chunk(groups), strict=True)):
            first = group * size
            ends = torch.searchsorted(survivors, torch.tensor([first, first + size], device=survivors.device))
            active = survivors[int(ends[0]) : int(ends[1])] - first
            found = self._search()(r, c, min(k, size - active.numel()), active, metric=self.metric)
            indices.append(found.index + first)
            products.append(found.products)
            keys.append(self._keys(found, r, c))
        index, product = torch.cat(indices), torch.cat(products)
        best = torch.topk(torch.cat(keys), min(k, index.numel()), sorted=False).indices.sort().values
        return Found(index[best], product[best])

    def _keys(self, found: Found, rows: Tensor, cols: Tensor) -> Tensor:
        if self.metric == "abs":
            return found.products.abs()
        if self.metric == "ip":
            return found.products
        i, j = found.index // cols.shape[0], found.index % cols.shape[0]
        return -(rows[i].float() - cols[j].float()).square().sum(1)
