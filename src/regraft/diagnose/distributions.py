"""How the weights that a pruning kept are distributed, at the start and at the end of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regraft import positions
from regraft.errors import InputError, MismatchError
from regraft.evolve.named import unwrapped
from regraft.topology import Topology
from regraft.weight import SparseWeight

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Distribution:
    """Figures and histogram of a set of values.

    Attributes:
        n: how many.
        mean, std: of the values; std divides by n. 0 where there are none.
        quantiles: at the shares ``QUANTILES``, by linear interpolation; empty where there are no values.
        positive: share above 0.
        edges: of the bins, increasing, ``bins + 1`` of them.
        counts: values in each bin, the last one closed above.
    """

    n: int
    mean: float
    std: float
    quantiles: tuple[float, ...]
    positive: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "n": self.n, "mean": self.mean, "std": self.std, "positive": self.positive,
            "quantiles": dict(zip(map(str, QUANTILES), self.quantiles, strict=False)),
            "edges": list(self.edges), "counts": list(self.counts),
        }  # fmt: skip


def distribution(values: Tensor, *, bins: int = 40, span: tuple[float, float] | None = None) -> Distribution:
    """The distribution of a tensor's values.

    Args:
        bins: of equal width, 1 or more.
        span: what the bins cover; values outside are in no bin. Default: from the smallest to the largest.

    >>> found = distribution(torch.tensor([-1.0, 0.0, 0.0, 3.0]), bins=4)
    >>> found.counts, found.mean, found.positive
    ((1, 2, 0, 1), 0.5, 0.25)

    Raises:
        InputError: bins below 1, a span that does not increase, or values that are NaN or infinite.
    """
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise InputError(f"bins is {bins!r}, but must be a whole number of 1 or more")
    flat = values.detach().double().cpu().reshape(-1)
    if not bool(flat.isfinite().all()):
        raise InputError("the values hold NaN or infinity: their distribution cannot be drawn")
    n = flat.numel()
    if span is None:
        low, high = (float(flat.min()), float(flat.max())) if n else (0.0, 0.0)
        span = (low, high) if high > low else (low - 0.5, high + 0.5)
    if not span[0] < span[1]:
        raise InputError(f"the span is {span!r}, but must increase")
    # numpy's and torch's histograms give the last bin both ends
    counts, edges = torch.histogram(flat, bins, range=span)
    return Distribution(
        n,
        float(flat.mean()) if n else 0.0,
        float(flat.std(correction=0)) if n else 0.0,
        tuple(_quantiles(flat)),
        int((flat > 0).sum()) / n if n else 0.0,
        tuple(edges.tolist()),
        tuple(int(c) for c in counts.tolist()),
    )


def kept_values(model: nn.Module, topology: Topology) -> dict[str, Tensor]:
    """A model's values at the connections of ``topology``: {weight name: vector [nnz]}, copies on the CPU.

    The model may be the dense network before pruning (initial values), the ticket, or the trained ticket
    (final values).

    >>> model = nn.Sequential(nn.Linear(2, 2))
    >>> kept = kept_values(model, Topology({"0.weight": ((2, 2), torch.tensor([3]))}))
    >>> kept["0.weight"].item() == model[0].weight[1, 1].item()
    True

    Raises:
        MismatchError: the model lacks a weight or a connection, or has it in another shape.
    """
    inner = unwrapped(model)
    modules = dict(inner.named_modules())
    return {name: _values_at(modules, name, topology) for name in topology}


def _values_at(modules: Mapping[str, nn.Module], name: str, topology: Topology) -> Tensor:
    index = topology[name].index
    module = modules.get(name)
    if isinstance(module, SparseWeight):
        _same_shape(name, tuple(module.shape), topology[name].shape)
        there = module.index.cpu()
        missing = positions.difference(index, there).numel()
        if missing:
            raise MismatchError(
                f"the model lacks {missing} of the {index.numel()} connections of '{name}': compare networks "
                "of which one has been pruned from the other"
            )
        return module.values.detach().cpu()[torch.searchsorted(there, index)]
    layer = modules.get(name.removesuffix(".weight"))
    weight = getattr(layer, "weight", None)
    if layer is None or not isinstance(weight, Tensor):
        raise MismatchError(f"the {type(modules['']).__name__} has no weight '{name}'")
    _same_shape(name, tuple(weight.shape), topology[name].shape)
    return weight.detach().cpu().reshape(-1)[index]


def _same_shape(name: str, here: tuple[int, ...], there: tuple[int, ...]) -> None:
    if here != there:
        raise MismatchError(f"'{name}' has shape {here} in the model, but {there} in the topology")


def _quantiles(flat: Tensor) -> list[float]:
    """By linear interpolation between order statistics; ``torch.quantile`` refuses large tensors."""
    if not flat.numel():
        return []
    ordered, last = flat.sort().values, flat.numel() - 1
    found = []
    for share in QUANTILES:
        at = share * last
        low = int(at)
        a, b = float(ordered[low]), float(ordered[min(low + 1, last)])
        found.append(a + (at - low) * (b - a))
    return found
