"""What readers return: arrays as the files hold them, not yet split, chosen or scaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.errors import FileError, RegraftError

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class RawSplit:
    """Samples ``x`` [n, ...] of any real dtype and labels ``y`` [n]; ``source`` names them in errors."""

    x: Array
    y: Array
    source: str
    label_source: str = ""

    def check(self, classes: int, error: type[RegraftError] = FileError) -> None:
        """Refuse what no training could use.

        Raises:
            RegraftError: of the type ``error``: no samples, counts that differ, labels out of 0..classes-1,
                NaN or infinite features, features that are no real numbers.
        """
        labels = self.label_source or self.source
        if len(self.x) != len(self.y):
            raise error(
                f"'{self.source}' has {len(self.x)} samples, but '{labels}' has {len(self.y)} labels: "
                "they do not belong together"
            )
        if self.x.size == 0:
            raise error(
                f"'{self.source}' is empty: it holds {len(self.x)} samples of shape {self.x.shape[1:]}"
            )
        low, high = int(self.y.min()), int(self.y.max())
        if low < 0 or high >= classes:
            wrong = low if low < 0 else high
            raise error(
                f"'{labels}' has the label {wrong}, but expected 0 to {classes - 1} ({classes} classes)"
            )
        if self.x.dtype.kind not in "buif":
            raise error(f"'{self.source}' has features of type {self.x.dtype}, but expected real numbers")
        if self.x.dtype.kind == "f":
            bad = ~np.isfinite(self.x).reshape(len(self.x), -1).all(axis=1)
            if bad.any():
                raise error(
                    f"'{self.source}' has NaN or infinite features, first in sample {int(bad.argmax())} "
                    "(counting from 0): clean or leave out such samples"
                )


@dataclass(frozen=True, eq=False)
class RawData:
    """A set as its files hold it.

    Attributes:
        name: the set's name.
        train: the training samples, or all samples where there is no official test set.
        test: the official test samples, or None.
        class_names: one per label.
        images: x is [n, channels, height, width]; else a table [n, features].
        top: the largest value a pixel can have (255 for 8 bits); None where there is none.
        test_fraction: the default share of test samples where there is no official test set.
        error: what to raise about bad contents.
    """

    name: str
    train: RawSplit
    test: RawSplit | None
    class_names: tuple[str, ...]
    images: bool
    top: float | None = None
    test_fraction: float = 1 / 3
    error: type[RegraftError] = FileError


def whole_numbers(values: object, source: str, error: type[RegraftError] = FileError) -> NDArray[np.int64]:
    """Labels of any integer or integral type as int64 [n].

    Raises:
        RegraftError: of the type ``error``: not one number per sample, or not whole.
    """
    array = np.asarray(values)
    if array.ndim == 2 and 1 in array.shape:
        array = array.reshape(-1)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "biuf"):
        raise error(
            f"the labels in '{source}' are {array.dtype} of shape {array.shape}, "
            "but expected one whole number per sample"
        )
    with np.errstate(invalid="ignore"):
        whole = array.astype(np.int64)
    if array.size and not np.array_equal(whole, array):
        raise error(f"the labels in '{source}' are not whole numbers: expected class numbers")
    return whole
