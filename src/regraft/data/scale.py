"""Standardisation from the training samples alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regraft.data.raw import Array
from regraft.errors import InputError, unknown

Kind = Literal["channel", "feature", "pixel"]
KINDS: tuple[Kind, ...] = ("channel", "feature", "pixel")

# about 32 MB of float64 at a time: large sets never exist in float64 as a whole
_CHUNK_VALUES = 1 << 22


@dataclass(frozen=True, eq=False)
class Scaling:
    """(x - mean) / std, as it was applied to a set; call it on raw values to prepare new samples alike.

    Attributes:
        kind: "channel", "feature" or "pixel".
        mean: float32, broadcasts against one sample.
        std: float32, likewise; 1 where a feature is constant.

    >>> Scaling("pixel", torch.zeros(1), torch.full((1,), 255.0))(torch.tensor([[0.0, 255.0]]))
    tensor([[0., 1.]])
    """

    kind: Kind
    mean: Tensor
    std: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Scale raw samples [n, ...] to float32."""
        return (x.to(torch.float32) - self.mean.to(x.device)) / self.std.to(x.device)

    def flatten(self, input_shape: tuple[int, ...]) -> Scaling:
        """The same scaling for flattened samples."""
        mean, std = (t.expand(input_shape).flatten() for t in (self.mean, self.std))
        return Scaling(self.kind, mean, std)

    def describe(self) -> dict[str, Any]:
        """The kind; mean and std too where they are few."""
        few = self.mean.numel() <= 4
        figures = {"mean": self.mean.flatten().tolist(), "std": self.std.flatten().tolist()} if few else {}
        return {"kind": self.kind, **figures}


def resolve(standardise: bool | str, images: bool, name: str) -> Kind | None:
    """Which scaling ``standardise`` means for images or for a table.

    >>> resolve(True, images=True, name="mnist"), resolve(True, images=False, name="wine")
    ('channel', 'feature')

    Raises:
        InputError: an unknown kind, or one that a table does not have.
    """
    if standardise is False:
        return None
    if standardise is True:
        return "channel" if images else "feature"
    for kind in KINDS:
        if standardise == kind:
            if kind != "feature" and not images:
                raise InputError(
                    f"{name!r} is a table, which has no {kind}s to scale by: use 'feature', True or False"
                )
            return kind
    raise unknown("standardisation", standardise, KINDS)


def fit(x: Array, kind: Kind, top: float | None, name: str) -> Scaling:
    """Statistics of the training samples ``x`` [n, ...].

    "channel": mean and standard deviation of each channel over samples and positions; "feature": of each
    position over samples; "pixel": no statistics, division by ``top``, so that values are in [0, 1].
    The standard deviation is the population's (divided by n). What is constant in ``x`` gets std 1, so it
    becomes 0 in ``x`` and stays finite elsewhere.

    Raises:
        InputError: "pixel" for a set without a largest value.
    """
    if kind == "pixel":
        if top is None:
            raise InputError(
                f"the values of {name!r} have no known range to scale by: use 'channel' or 'feature'"
            )
        return Scaling(kind, torch.zeros(1), torch.full((1,), float(top)))
    axes = (0, *range(2, x.ndim)) if kind == "channel" else (0,)
    count = np.prod([x.shape[a] for a in axes], dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = sum(part.sum(axis=axes, keepdims=True) for part in _chunks(x)) / count
        variance = sum(((part - mean) ** 2).sum(axis=axes, keepdims=True) for part in _chunks(x)) / count
    # equality of extremes, not std == 0: rounding of the mean leaves a tiny std on constant features
    constant = x.max(axis=axes, keepdims=True) == x.min(axis=axes, keepdims=True)
    std = np.where(constant, 1.0, np.sqrt(variance))
    mean32, std32 = (torch.from_numpy(np.asarray(v[0], dtype=np.float64)) for v in (mean, std))
    return Scaling(kind, mean32.float(), std32.float())


def apply(x: Array, scaling: Scaling | None) -> Tensor:
    """``x`` [n, ...] scaled, as one float32 tensor; computed in float64 so large offsets lose nothing."""
    out = np.empty(x.shape, dtype=np.float32)
    start = 0
    mean, std = (
        (0.0, 1.0) if scaling is None else (scaling.mean.double().numpy(), scaling.std.double().numpy())
    )
    with np.errstate(over="ignore", invalid="ignore"):
        for part in _chunks(x):
            out[start : start + len(part)] = (part - mean) / std
            start += len(part)
    return torch.from_numpy(out)


def _chunks(x: Array) -> Iterator[NDArray[np.float64]]:
    rows = max(1, _CHUNK_VALUES // max(1, x[0].size))
    for start in range(0, len(x), rows):
        yield x[start : start + rows].astype(np.float64)
