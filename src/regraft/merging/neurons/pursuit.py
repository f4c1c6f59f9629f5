"""Orthogonal matching pursuit on sums: which connections of a last layer say most."""

from __future__ import annotations

import torch
from torch import Tensor

from regraft.merging.neurons.sums import ReadoutSums

LEAST = 1e-9
"""A unit whose size is below this share of the largest one's is taken for constant."""


def pursued(sums: ReadoutSums, k: int, bias: bool, ridge: float) -> Tensor:
    """Flat positions, increasing int64, of at most ``k`` connections [outputs, units] (Pati et al. 1993).

    One after the other comes the connection whose unit explains most of what is left of an output, once the
    values so far (and the bias) have been fitted by least squares. Fewer come where nothing is left.

    Args:
        sums: with a last row for the bias, if there is one.
        k: how many.
        bias: whether the last row of the sums is that of a bias.
        ridge: relative to each input's size, as for the values.
    """
    units, outputs = len(sums.gram) - bias, sums.cross.shape[1]
    gram, cross = sums.gram, sums.cross
    always = [units] if bias else []
    size = gram.diagonal()[:units].clone()
    if bias:
        size -= gram[:units, -1] ** 2 / gram[-1, -1]
    alive = size > LEAST * float(size.max().clamp(min=torch.finfo(size.dtype).tiny))
    taken: list[list[int]] = [[] for _ in range(outputs)]

    def gains(output: int) -> Tensor:
        left = cross[:units, output]
        on = taken[output] + always
        if on:
            held = gram[on][:, on] + (ridge * gram.diagonal()[on]).diag()
            left = left - gram[:units, on] @ torch.linalg.solve(held, cross[on, output])
        gain = torch.where(alive, left**2 / size, 0.0)
        gain[taken[output]] = 0.0
        return gain

    table = torch.stack([gains(output) for output in range(outputs)])
    for _ in range(k):
        output, unit = divmod(int(table.argmax()), units)
        if not table[output, unit] > 0:
            break
        taken[output].append(unit)
        table[output] = gains(output)
    flat = [output * units + unit for output, own in enumerate(taken) for unit in own]
    return torch.tensor(sorted(flat), dtype=torch.int64)
