"""``Topology``: which connections of a model exist, and the distances between two such sets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from regraft import positions
from regraft.errors import InputError, MismatchError, unknown
from regraft.weight import SparseWeight


@dataclass(frozen=True, eq=False)
class Connections:
    """The active positions of one weight."""

    shape: tuple[int, ...]
    index: Tensor

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Connections):
            return NotImplemented
        return self.shape == other.shape and torch.equal(self.index, other.index)

    def __hash__(self) -> int:
        return hash((self.shape, self.index.numel()))

    @property
    def size(self) -> int:
        """Number of positions."""
        return math.prod(self.shape)

    @property
    def nnz(self) -> int:
        """Number of active positions."""
        return self.index.numel()

    @property
    def density(self) -> float:
        """nnz / size."""
        return self.nnz / self.size if self.size else 0.0


class Topology(Mapping[str, Connections]):
    """Which connections exist: weight name -> (shape, index). Frozen and comparable.

    Sets of connections combine with ``|``, ``&`` and ``-``; both sides must have the same weights and shapes.

    >>> a = Topology({"w": ((2, 2), torch.tensor([0, 1]))})
    >>> b = Topology({"w": ((2, 2), torch.tensor([1, 3]))})
    >>> (a | b)["w"].index.tolist(), (a & b)["w"].index.tolist(), (a - b)["w"].index.tolist()
    ([0, 1, 3], [1], [0])
    >>> round(a.nnstd(b), 3), round(a.jaccard(b), 3)
    (0.667, 0.333)
    """

    def __init__(self, weights: Mapping[str, tuple[tuple[int, ...], Tensor] | Connections]) -> None:
        """Take copies of positions after checking them.

        Raises:
            InputError: positions unsorted, duplicated or out of range.
        """
        checked = {}
        for name, entry in weights.items():
            if isinstance(entry, Connections):
                shape, index = entry.shape, entry.index
            else:
                shape, index = entry[0], entry[1].clone()
            index = positions.check(index.detach().cpu(), math.prod(shape), name=name)
            checked[name] = Connections(tuple(shape), index)
        self._weights = MappingProxyType(checked)

    @classmethod
    def of(cls, model: nn.Module) -> Topology:
        """The topology of a model's sparse weights; later changes of the model do not touch it.

        Raises:
            InputError: the model has no sparse weight.
        """
        found = {
            name: (tuple(w.shape), w.index)
            for name, w in model.named_modules()
            if isinstance(w, SparseWeight)
        }
        if not found:
            raise InputError(
                f"the {type(model).__name__} has no sparse weight: call regraft.sparsify(model, ...) first"
            )
        return cls(found)

    def __getitem__(self, name: str) -> Connections:
        if name not in self._weights:
            raise KeyError(str(unknown("weight", name, self._weights)))
        return self._weights[name]

    def __contains__(self, name: object) -> bool:
        return name in self._weights

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Topology):
            return NotImplemented
        return dict(self._weights) == dict(other._weights)

    def __hash__(self) -> int:
        return hash(frozenset(self._weights.items()))

    def __reduce__(self) -> tuple[type[Topology], tuple[dict[str, Connections]]]:
        return type(self), (dict(self._weights),)  # a mapping proxy cannot be pickled

    def __repr__(self) -> str:
        inside = ", ".join(f"{n}: {c.nnz}/{c.size}" for n, c in self.items())
        return f"Topology({inside})"

    @property
    def nnz(self) -> int:
        """Number of active connections over all weights."""
        return sum(c.nnz for c in self.values())

    @property
    def size(self) -> int:
        """Number of positions over all weights."""
        return sum(c.size for c in self.values())

    @property
    def density(self) -> float:
        """nnz / size of the whole."""
        return self.nnz / self.size if self.size else 0.0

    @property
    def sparsity(self) -> float:
        """1 - density."""
        return 1.0 - self.density

    def __or__(self, other: Topology) -> Topology:
        return self._combine(other, positions.union)

    def __and__(self, other: Topology) -> Topology:
        return self._combine(other, positions.intersection)

    def __sub__(self, other: Topology) -> Topology:
        return self._combine(other, positions.difference)

    def _combine(self, other: Topology, op: Callable[[Tensor, Tensor], Tensor]) -> Topology:
        self.check_same_weights(other)
        return Topology({n: Connections(c.shape, op(c.index, other[n].index)) for n, c in self.items()})

    def check_same_weights(self, other: Topology) -> None:
        """Raise MismatchError unless both have the same weight names with the same shapes."""
        for name in (*self, *other):
            if name not in self or name not in other:
                raise MismatchError(
                    f"weight '{name}' is in only one of the two networks: they must share one architecture"
                )
            if self[name].shape != other[name].shape:
                raise MismatchError(
                    f"weight '{name}' has shape {self[name].shape} in one network and {other[name].shape} "
                    "in the other: they must share one architecture"
                )

    def overlap(self, other: Topology) -> dict[str, tuple[int, int]]:
        """For each weight, the number of positions in both and in at least one: {name: (shared, union)}."""
        self.check_same_weights(other)
        counts = {}
        for name, mine in self.items():
            theirs = other[name]
            shared = int(positions.contains(theirs.index, mine.index).sum())
            counts[name] = (shared, mine.nnz + theirs.nnz - shared)
        return counts

    def jaccard(self, other: Topology) -> float:
        """Size of the intersection over that of the union, of the whole; 1 where both are empty."""
        return _ratio(self.overlap(other).values())

    def jaccard_by_weight(self, other: Topology) -> dict[str, float]:
        """Jaccard index of each weight."""
        return {n: _ratio([pair]) for n, pair in self.overlap(other).items()}

    def nnstd(self, other: Topology) -> float:
        """Neural Network Sparse Topology Distance of the whole: 0 equal, 1 disjoint.

        D = unique / (unique + overlap), where *unique* counts the connections of exactly one network and
        *overlap* those of both (Steerneman, thesis, section 3; after Liu et al. 2020, arXiv:2006.14085).
        Unit by unit matching is not part of it: position i, j is compared with position i, j. Hence
        D = 1 - Jaccard, with the counts summed over the weights.
        """
        return 1.0 - self.jaccard(other)

    def nnstd_by_weight(self, other: Topology) -> dict[str, float]:
        """NNSTD of each weight."""
        return {n: 1.0 - j for n, j in self.jaccard_by_weight(other).items()}

    def expected_nnstd(self, other: Topology | None = None) -> float:
        """NNSTD that two independent uniform topologies of these densities would have.

        With both densities d = 1 - S it is 2S / (1 + S) (thesis 1, section 3). For unequal densities p, q of
        a weight with n positions, overlap = n p q and union = n (p + q - p q); both are summed over weights.

        >>> t = Topology({"w": ((10, 10), torch.arange(0, 100, 10))})
        >>> round(t.expected_nnstd(), 4) == round(2 * 0.9 / 1.9, 4)
        True
        """
        other = self if other is None else other
        self.check_same_weights(other)
        shared = sum(c.size * c.density * other[n].density for n, c in self.items())
        union = sum(c.nnz + other[n].nnz for n, c in self.items()) - shared
        return 1.0 - shared / union if union else 0.0

    def connectivity_pattern(self, name: str | None = None) -> Tensor:
        """Number of active connections that leave each input unit of a weight (default: the first), int64
        [in]. Reshaped to the image it shows which pixels a network looks at (Mocanu et al. 2018; thesis 1,
        figure 18).
        """
        name = next(iter(self)) if name is None else name
        c = self[name]
        kernel = math.prod(c.shape[2:])
        units = torch.div(c.index % math.prod(c.shape[1:]), kernel, rounding_mode="floor")
        return torch.bincount(units, minlength=c.shape[1])


def expected_nnstd(sparsity: float) -> float:
    """2S / (1 + S): the NNSTD of two independent uniform topologies of sparsity S (thesis 1, section 3).

    >>> [round(expected_nnstd(s), 2) for s in (0.5, 0.9, 0.99)]
    [0.67, 0.95, 0.99]
    """
    if not 0.0 <= sparsity <= 1.0:
        raise InputError(f"sparsity is {sparsity!r}, but must be in [0, 1]")
    return 2 * sparsity / (1 + sparsity)


def _ratio(pairs: Iterable[tuple[int, int]]) -> float:
    shared = total = 0
    for s, u in pairs:
        shared, total = shared + s, total + u
    return shared / total if total else 1.0
