"""``Split``: samples and their targets held as one tensor each; ``Data``: a set ready for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from regraft.data.partition import stratified
from regraft.data.scale import Scaling
from regraft.errors import InputError


@dataclass(frozen=True, eq=False)
class Split:
    """Samples ``x`` float32 [n, ...] and labels ``y`` int64 [n], on one device; or, for regression and for
    several labels a sample, numbers ``y`` float32 [n, outputs]; or, of texts, rows ``x`` [n, positions] with
    a label for each position, ``y`` int64 [n, positions].

    It is also a map-style ``torch.utils.data.Dataset`` (it has ``len`` and an index), so any torch DataLoader
    takes it; ``regraft.data.Loader`` is much faster because it gathers a batch by one ``index_select``.

    >>> split = Split(torch.zeros(4, 3), torch.tensor([0, 0, 1, 1]))
    >>> len(split), split.counts()
    (4, [2, 2])

    Raises:
        InputError: empty, lengths or devices that differ, another dtype, NaN or infinite samples or
            numbers, negative labels.
    """

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        x, y = self.x, self.y
        wanted = 1 if self.labelled else 2
        rows = self.labelled and y.ndim == 2 and x.shape == y.shape
        if not rows and (x.ndim < 1 or y.ndim != wanted or len(x) != len(y)):
            kind, shape = (
                ("labels", "[n]") if self.labelled else ("numbers", "[n, outputs] (labels are int64)")
            )
            raise InputError(
                f"samples of shape {tuple(x.shape)} and {kind} of shape {tuple(y.shape)} do not belong "
                f"together: expected [n, ...] and {shape}"
            )
        if x.numel() == 0 or y.numel() == 0:
            raise InputError(f"a split of shape {tuple(x.shape)} is empty: expected at least one sample")
        if x.dtype != torch.float32 or y.dtype not in (torch.int64, torch.float32):
            raise InputError(
                f"a split has float32 samples and int64 labels (or float32 numbers), not {x.dtype} and "
                f"{y.dtype}: convert them with .float() and .long()"
            )
        if x.device != y.device:
            raise InputError(f"samples on {x.device} and labels on {y.device}: expected one device")
        if not bool(torch.isfinite(x).all()):
            raise InputError("a split has NaN or infinite samples: clean or leave out such samples")
        if not self.labelled and not bool(torch.isfinite(y).all()):
            raise InputError("a split has NaN or infinite numbers: clean or leave out such samples")
        if self.labelled and int(y.min()) < 0:
            raise InputError(f"a split has the label {int(y.min())}: expected 0 or more")

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Any) -> tuple[Tensor, Tensor]:
        return self.x[index], self.y[index]

    @property
    def labelled(self) -> bool:
        """Whether ``y`` are labels, one a sample or one a position, and not numbers."""
        return not self.y.is_floating_point()

    @property
    def highest(self) -> Tensor:
        """The targets of one sample, [1, ...]; where they are labels, each the largest there is: what a
        model must have an output for."""
        return torch.full_like(self.y[:1], int(self.y.max())) if self.labelled else self.y[:1]

    @property
    def device(self) -> torch.device:
        """Where both tensors are."""
        return self.x.device

    def to(self, device: torch.device | str) -> Split:
        """The same split on another device."""
        return self if self.device == torch.device(device) else Split(self.x.to(device), self.y.to(device))

    def flatten(self) -> Split:
        """Samples as vectors: [n, ...] -> [n, features]."""
        return Split(self.x.flatten(1), self.y) if self.x.ndim != 2 else self

    def counts(self, classes: int = 0) -> list[int]:
        """Number of samples (of texts: positions) per label, at least ``classes`` entries.

        Raises:
            InputError: the split has numbers, not labels.
        """
        self._check_labelled("counts() counts labels")
        return [int(c) for c in torch.bincount(self.y.flatten(), minlength=classes).tolist()]

    def select(self, index: Tensor) -> Split:
        """The samples at ``index`` [k], int64, in that order."""
        index = index.to(self.device)
        return Split(self.x.index_select(0, index), self.y.index_select(0, index))

    def split_off(self, fraction: float, generator: torch.Generator) -> tuple[Split, Split]:
        """Take a stratified share off, for validation: (the rest, the part of ceil(fraction * n) samples).

        Both keep the order of samples; every class is within one sample of its share.

        >>> split = Split(torch.arange(10.).reshape(10, 1), torch.tensor([0] * 5 + [1] * 5))
        >>> rest, part = split.split_off(0.4, torch.Generator().manual_seed(0))
        >>> rest.counts(), part.counts()
        ([3, 3], [2, 2])

        Raises:
            InputError: ``fraction`` not in (0, 1), or one side would be empty; numbers instead of labels.
        """
        self.check_one_label("split_off() divides each class")
        rest, part = stratified(self.y, fraction, generator)
        return self.select(rest), self.select(part)

    def check_one_label(self, what: str) -> None:
        """Raise InputError unless each sample has one label."""
        self._check_labelled(what)
        if self.y.ndim != 1:
            raise InputError(
                f"{what}, but each sample of this split has {self.y.shape[1]} labels, one for each of its "
                "positions: pick samples with select(torch.randperm(len(split))[:k])"
            )

    def _check_labelled(self, what: str) -> None:
        if not self.labelled:
            raise InputError(
                f"{what}, but this split has numbers of shape {tuple(self.y.shape)}: pick samples with "
                "select(torch.randperm(len(split))[:k])"
            )


@dataclass(frozen=True, eq=False)
class Data:
    """A set ready for training: samples with labels, or with numbers.

    Attributes:
        name: the set's name.
        train: what to train on.
        test: what to test on.
        class_names: one name per label; where the targets are numbers, one per output.
        validation: a stratified share taken off the training samples, or None.
        scaling: how raw values became ``x`` (statistics of ``train`` alone), or None where they were left.

    >>> part = Split(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]))
    >>> data = Data("toy", part, part, ("no", "yes"))
    >>> data.input_shape, data.features, data.classes
    ((1, 8, 8), 64, 2)

    Raises:
        InputError: samples of different shapes, a label or an output without a name, labels in one part and
            numbers in another.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    validation: Split | None = None
    scaling: Scaling | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(self.class_names))
        for part, split in self.splits().items():
            if tuple(split.x.shape[1:]) != self.input_shape:
                raise InputError(
                    f"{part} samples of {self.name!r} have shape {tuple(split.x.shape[1:])}, "
                    f"training samples {self.input_shape}: expected the same"
                )
            if split.labelled != self.train.labelled:
                raise InputError(
                    f"{part} targets of {self.name!r} are {split.y.dtype}, training targets "
                    f"{self.train.y.dtype}: expected labels in all parts, or numbers in all"
                )
            if not split.labelled and split.y.shape[1] != self.classes:
                raise InputError(
                    f"{part} targets of {self.name!r} have {split.y.shape[1]} numbers each, but there are "
                    f"{self.classes} names: expected one name per output"
                )
            if split.labelled and int(split.y.max()) >= self.classes:
                raise InputError(
                    f"{part} samples of {self.name!r} have the label {int(split.y.max())}, "
                    f"but there are {self.classes} classes: expected 0 to {self.classes - 1}"
                )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample: (channels, height, width) of an image, (features,) of a row of a table."""
        return tuple(self.train.x.shape[1:])

    @property
    def features(self) -> int:
        """Numbers in one sample."""
        return self.train.x[0].numel()

    @property
    def classes(self) -> int:
        """Number of classes, or of outputs."""
        return len(self.class_names)

    def splits(self) -> dict[str, Split]:
        """The splits there are, by name."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in parts.items() if split is not None}

    def to(self, device: torch.device | str) -> Data:
        """The same set with all tensors on another device."""
        return self._map(lambda split: split.to(device), self.scaling)

    def flatten(self) -> Data:
        """The same set with samples as vectors [n, features]."""
        scaling = self.scaling.flatten(self.input_shape) if self.scaling else None
        return self._map(lambda split: split.flatten(), scaling)

    def _map(self, change: Any, scaling: Scaling | None) -> Data:
        parts = {name: change(split) for name, split in self.splits().items()}
        return replace(self, scaling=scaling, **parts)

    def describe(self) -> dict[str, Any]:
        """Plain figures for reports and files: shapes, counts per label, how values were scaled.

        >>> part = Split(torch.zeros(2, 3), torch.tensor([0, 1]))
        >>> Data("toy", part, part, ("no", "yes")).describe()["train"]
        {'samples': 2, 'per_class': [1, 1]}
        """
        counts = {
            name: {"samples": len(split)}
            | ({"per_class": split.counts(self.classes)} if split.labelled else {})
            for name, split in self.splits().items()
        }
        scaling = None if self.scaling is None else self.scaling.describe()
        shape: Sequence[int] = list(self.input_shape)
        return {
            "name": self.name, "input_shape": shape, "classes": self.classes,
            "class_names": list(self.class_names), **counts, "scaling": scaling,
        }  # fmt: skip
