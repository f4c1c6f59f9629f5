"""Random hyperplanes: columns whose signs agree with a row's are taken to be similar to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regraft.errors import InputError
from regraft.search.neighbours import Floats, Integers, by_neighbours, check_k_similar
from regraft.search.protocol import Found, Metric, door


@dataclass(frozen=True)
class Lsh:
    """Search by hashing with random hyperplanes (Charikar 2002; thesis 4, tables 3.4 and 3.5).

    Each vector becomes its signs at random hyperplanes, and the columns closest to a row are those that
    differ in the fewest signs: of b hyperplanes, about b * angle / pi separate two vectors.

    Args:
        bits: hyperplanes, as a multiple of the number of samples B; the thesis tries 0.5 to 8.
        k_similar: neighbours for each row, as a fraction of the columns in (0, 1].
        weighted: rank by the product (for ``l2`` the distance) that this angle and the norms give, rather
            than by the angle alone.
        seed: of the hyperplanes.

    Raises:
        InputError: a fraction outside (0, 1]; bits that are not positive.
    """

    bits: float = 1.0
    k_similar: float = 0.15
    weighted: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_k_similar(self.k_similar)
        if not isinstance(self.bits, float | int) or not 0 < self.bits <= 1024:
            raise InputError(
                f"bits is {self.bits!r}, but must be in (0, 1024]: hyperplanes as a multiple of the samples"
            )

    @torch.no_grad()
    def __call__(
        self, rows: Tensor, columns: Tensor, k: int, exclude: Tensor | None = None, *, metric: Metric = "abs"
    ) -> Found:
        query = door(rows, columns, k, exclude, metric)
        samples = query.rows.shape[1]
        count = max(1, round(self.bits * samples))
        generator = torch.Generator().manual_seed(self.seed)
        planes = torch.randn(samples, count, generator=generator).numpy()
        codes = _codes(query.columns.cpu().numpy() @ planes)
        norms = query.column_norms.cpu().numpy()
        near = np.cos(np.arange(count + 1, dtype=np.float32) * np.float32(np.pi / count))

        def nearest(queries: Floats, each: int) -> Integers:
            differ = _differences(_codes(queries @ planes), codes)
            score = near[differ]
            if self.weighted:
                score = score * norms
                if metric == "l2":
                    score = 2 * np.linalg.norm(queries, axis=1, keepdims=True) * score - norms**2
            if each == score.shape[1]:
                return np.tile(np.arange(each, dtype=np.int64), (score.shape[0], 1))
            return torch.from_numpy(score).topk(each, dim=1, sorted=False).indices.numpy()

        return by_neighbours(query, nearest, self.k_similar)


def _codes(sides: Floats) -> NDArray[np.uint64]:
    """Signs as bits of 64-bit words [n, words]."""
    bits = np.packbits(sides > 0, axis=1)
    padded = np.zeros((bits.shape[0], -(-bits.shape[1] // 8) * 8), dtype=np.uint8)
    padded[:, : bits.shape[1]] = bits
    return padded.view(np.uint64)


def _differences(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Bits that differ between each of ``a`` and each of ``b`` [len(a), len(b)].

    >>> _differences(np.array([[5]], np.uint64), np.array([[4], [2]], np.uint64)).tolist()
    [[1, 3]]
    """
    differ = np.zeros((a.shape[0], b.shape[0]), dtype=np.int32)
    for word in range(a.shape[1]):
        differ += _ones(a[:, word, None] ^ b[:, word])
    return differ


def _ones(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """How many bits are set in each word; numpy has it from version 2 on."""
    if hasattr(np, "bitwise_count"):
        counted: NDArray[np.uint8] = np.bitwise_count(words)
        return counted
    summed: NDArray[np.uint8] = np.unpackbits(words[..., None].view(np.uint8), axis=-1).sum(
        -1, dtype=np.uint8
    )
    return summed
