"""``ReadoutSums``: what the owners of data send so that a last layer can be fitted to all of it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regraft.errors import MismatchError


@dataclass(frozen=True, eq=False)
class ReadoutSums:
    """What least squares needs to know of some data: sums over samples, which can be added over data sets.

    Attributes:
        layer: name of the last layer.
        count: samples.
        gram: sum of h h^T, float64 [units + 1, units + 1]: h is what the last layer reads, and a 1 for its
            bias.
        cross: sum of h t^T, float64 [units + 1, outputs]: t is what the network was to put out.
    """

    layer: str
    count: int
    gram: Tensor
    cross: Tensor

    def __add__(self, other: ReadoutSums) -> ReadoutSums:
        if self.gram.shape != other.gram.shape or self.cross.shape != other.cross.shape:
            raise MismatchError(
                f"sums over {self.gram.shape[0] - 1} units and {self.cross.shape[1]} outputs do not add to "
                f"sums over {other.gram.shape[0] - 1} and {other.cross.shape[1]}: take those of one merged "
                "network"
            )
        return ReadoutSums(
            self.layer, self.count + other.count, self.gram + other.gram, self.cross + other.cross
        )
