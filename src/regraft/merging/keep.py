"""Which merged connections stay: exact counts, in one pass over pieces of any size."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from regraft import scores
from regraft.errors import InputError, check_density
from regraft.merging import keys
from regraft.merging.blocks import Piece
from regraft.merging.networks import Layer

Density = float | Literal["keep"] | None
Scope = Literal["layer", "global"]
ValueScore = Callable[[Tensor], Tensor]
"""Merged values [m] -> scores [m], each from its own value alone; the higher is kept."""


def magnitude(values: Tensor) -> Tensor:
    """|w|."""
    return values.abs()


def random(values: Tensor) -> Tensor:
    """The same for all: equal scores are decided at random."""
    return torch.zeros_like(values)


VALUE_SCORES: dict[str, ValueScore] = {"magnitude": magnitude, "random": random}


def value_score(name: str) -> ValueScore:
    """The score of single values called ``name``.

    Raises:
        InputError: unknown, or a score that looks at the model.
    """
    if name not in VALUE_SCORES:
        scores.parse(name)
        raise InputError(
            f"the score '{name}' looks at the whole network, but files are merged in blocks: call merge, or "
            "keep the union (density=None) and call resparsify on it"
        )
    return VALUE_SCORES[name]


def check_scope(scope: str) -> None:
    """Raise InputError unless ``scope`` is one of the two."""
    if scope not in ("layer", "global"):
        raise InputError(
            f"scope is {scope!r}, but must be 'layer' (each layer keeps its own count) or 'global' (the best "
            "of all layers together)"
        )


def chosen_layers(layers: Sequence[Layer], density: Density) -> list[Layer]:
    """The layers that a density applies to: those that are sparse in some network; where none is, and a
    number asks for it, all Linear and Conv weights. A layer that all networks hold dense stays dense.
    """
    sparse = [layer for layer in layers if layer.sparse]
    if sparse or density is None or density == "keep":
        return sparse
    return [layer for layer in layers if layer.prunable and layer.kind == "weight"]


def budgets(layers: Sequence[Layer], density: Density) -> dict[str, int] | None:
    """Connections that each chosen layer keeps; None for all of the union.

    ``"keep"``: the mean count of the parents, rounded half up. A number: ``round(density * size)``.

    Raises:
        InputError: density outside (0, 1], or a layer that would keep nothing; no layer that can be sparse.
    """
    chosen = chosen_layers(layers, density)
    if density is None:
        return None
    if density == "keep":
        return {x.name: (2 * sum(x.stored) + len(x.stored)) // (2 * len(x.stored)) for x in chosen}
    if not isinstance(density, int | float):
        raise InputError(f"density is {density!r}, but must be 'keep', None, or a number in (0, 1]")
    share = check_density(density)
    if not chosen:
        raise InputError("the networks have no Linear or Conv weight that could be made sparse")
    counts = {layer.name: round(share * layer.size) for layer in chosen}
    for layer in chosen:
        if counts[layer.name] < 1 <= layer.size:
            raise InputError(
                f"'{layer.name}' of shape {layer.shape} would keep no connection at density {share}: raise it"
            )
    return counts


class Best:
    """The ``k`` best of all entries added, over one layer or several, exactly.

    Equal scores are decided by a hash of seed, layer and position, so the result does not depend on how the
    entries were cut into pieces. Memory is O(k + slack): entries gather in one buffer, and when that is full
    all but the k best are forgotten.
    """

    def __init__(
        self, layers: Sequence[Layer], k: int, score: ValueScore, seed: int, slack: int | None = None
    ) -> None:
        self._layers, self._k, self._score, self._seed = layers, k, score, seed
        self._slack = max(2**15, k // 4) if slack is None else slack
        sizes = [layer.size for layer in layers]
        room = min(k + self._slack, sum(sizes))
        narrow = torch.int32 if max(sizes, default=0) < 2**31 else torch.int64
        self._index = torch.empty(room, dtype=narrow)
        dtype = functools.reduce(torch.promote_types, [x.dtype for x in layers]) if layers else torch.float32
        self._values = torch.empty(room, dtype=dtype)
        self._held = [0] * len(layers)  # entries of each layer, one layer after the other in the buffer
        self._threshold: float | None = None

    def add(self, number: int, pieces: Iterable[Piece]) -> None:
        """Offer entries of layer ``number``, in order of position, after those of the layers before it."""
        for index, values in pieces:
            for start in range(0, values.numel(), self._slack):
                self._take(number, index[start : start + self._slack], values[start : start + self._slack])

    def _take(self, number: int, index: Tensor, values: Tensor) -> None:
        if self._threshold is not None:
            good = self._scores(values, self._layers[number].name) >= self._threshold
            kept = good.nonzero().squeeze(1)
            index, values = index.index_select(0, kept), values.index_select(0, kept)
        if sum(self._held) + values.numel() > self._values.numel():
            self._compact()
        at = slice(sum(self._held), sum(self._held) + values.numel())
        self._index[at], self._values[at] = index, values
        self._held[number] += values.numel()

    def result(self) -> list[Piece]:
        """What stays of each layer, in order of position; everything if there are at most k entries."""
        self._compact()
        n = sum(self._held)
        layers = torch.split(self._index[:n], self._held), torch.split(self._values[:n], self._held)
        return list(zip(*layers, strict=True))

    def _scores(self, values: Tensor, name: str) -> Tensor:
        scores = self._score(values)
        if scores.shape != values.shape or bool(scores.isnan().any()):
            raise InputError(f"the score of '{name}' must be one number for each value, none of them NaN")
        return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores

    def _compact(self) -> None:
        """Forget all but the k best, in place and chunk by chunk: the buffer is never copied whole."""
        n = sum(self._held)
        if n <= self._k:
            return
        threshold, room = self._limit(n)
        winners = self._winners(threshold, room)
        to = 0
        for number, start, stop in self._chunks():
            good = self._scores_at(start, stop) > threshold
            first, last = torch.searchsorted(winners, torch.tensor([start, stop])).tolist()
            good[winners[first:last] - start] = True
            kept = good.nonzero().squeeze(1)
            at = slice(to, to + kept.numel())
            self._index[at] = self._index[start:stop].index_select(0, kept)
            self._values[at] = self._values[start:stop].index_select(0, kept)
            self._held[number] += kept.numel() - (stop - start)
            to = at.stop
        self._threshold = threshold

    def _chunks(self) -> list[tuple[int, int, int]]:
        """The buffer's entries in ranges that lie in one layer each: (number of the layer, start, stop)."""
        found, start = [], 0
        for number, held in enumerate(self._held):
            steps = range(start, start + held, self._slack)
            found += [(number, at, min(at + self._slack, start + held)) for at in steps]
            start += held
        return found

    def _scores_at(self, start: int, stop: int) -> Tensor:
        return self._scores(self._values[start:stop], "the merged network")

    def _limit(self, n: int) -> tuple[float, int]:
        """The k-th best score, and how many entries of exactly this score stay."""
        if self._k == 0:
            return math.inf, 0
        scores = self._scores_at(0, n)
        if scores.data_ptr() == self._values.data_ptr():
            scores = scores.clone()
        ordered = scores.numpy()
        ordered.partition(n - self._k)  # in place: a fraction of the memory of torch.kthvalue
        threshold = float(ordered[n - self._k])
        return threshold, self._k - int((scores[n - self._k :] > threshold).sum())

    def _winners(self, threshold: float, room: int) -> Tensor:
        """Which ``room`` of the entries at the threshold stay, increasing: those of the lowest hashes."""
        if room == 0:
            return torch.empty(0, dtype=torch.int64)
        tied, drawn = [], []
        for number, start, stop in self._chunks():
            at = start + torch.nonzero(self._scores_at(start, stop) == threshold).squeeze(1)
            tied.append(at)
            base = keys.base(self._seed, self._layers[number].name)
            drawn.append(keys.hashed(base, self._index.index_select(0, at).long()))
        entries = torch.cat(tied)
        if entries.numel() == room:
            return entries
        return entries[torch.argsort(torch.cat(drawn), stable=True)[:room]].sort().values


def resparsified(
    merged: Iterable[tuple[Layer, Iterator[Piece]]],
    layers: Sequence[Layer],
    counts: Mapping[str, int] | None,
    *,
    scope: Scope = "layer",
    score: ValueScore = magnitude,
    seed: int = 0,
) -> Iterator[tuple[Layer, Iterator[Piece]]]:
    """Layers and their merged pieces, cut down to ``counts``; layers without a count pass unchanged.

    Args:
        merged: the layers in the order of ``layers``.
        layers: all of them.
        counts: connections to keep, by name; None for all.
        scope: with ``"global"`` the layers with a count come last, when the best of all of them are known.
        score, seed: as for ``Best``.
    """
    check_scope(scope)
    counts = counts or {}
    cut = [layer for layer in layers if layer.name in counts]
    together = Best(cut, sum(counts.values()), score, seed) if scope == "global" else None
    for layer, pieces in merged:
        if layer.name not in counts:
            yield layer, pieces
        elif together is not None:
            together.add(cut.index(layer), pieces)
        else:
            one = Best([layer], counts[layer.name], score, seed)
            one.add(0, pieces)
            yield layer, iter(one.result())
    if together is not None:
        for layer, piece in zip(cut, together.result(), strict=True):
            yield layer, iter([piece])
