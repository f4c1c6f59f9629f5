"""From what a reader returns to what training takes: split, choose, scale, hold as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from regraft.data import scale
from regraft.data.partition import check_fraction, generator_for, of_class, stratified
from regraft.data.raw import RawData, RawSplit
from regraft.data.split import Data, Split
from regraft.errors import InputError, unknown


@dataclass(frozen=True)
class Options:
    """How to prepare a set; see ``load`` for what each field means."""

    classes: Sequence[int | str] | None = None
    per_class: int | None = None
    test_per_class: int | None = None
    test_fraction: float | None = None
    validation: float = 0.0
    seed: int = 0
    standardise: bool | str = True
    flatten: bool = False
    device: torch.device | str | None = None

    def check(self) -> None:
        """Refuse what cannot be meant, before any file is read.

        Raises:
            InputError: a count below 1, a fraction out of range, a seed that is no whole number.
        """
        for name in ("per_class", "test_per_class"):
            count = getattr(self, name)
            if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
                raise InputError(
                    f"{name} is {count!r}, but must be a whole number of 1 or more, or None for all"
                )
        if self.test_fraction is not None:
            check_fraction(self.test_fraction, "test_fraction")
        if self.validation != 0.0:
            check_fraction(self.validation, "validation")
        if isinstance(self.classes, str):
            raise InputError(f"classes is {self.classes!r}, but must be a list of class numbers or names")
        generator_for(self.seed)


def prepare(raw: RawData, options: Options) -> Data:
    """Split, choose, scale and hold ``raw`` as ``options`` say.

    Each choice has its own generator made from the seed, so none depends on which others are made.

    Raises:
        RegraftError: contents or options that cannot be used.
    """
    options.check()
    count = len(raw.class_names)
    raw.train.check(count, raw.error)
    if raw.test is not None:
        raw.test.check(count, raw.error)
    kind = scale.resolve(options.standardise, raw.images, raw.name)
    train, test = _train_and_test(raw, options)
    labels = _labels(options.classes, raw)
    train = _choose(raw, train, labels, options.per_class, options.seed, "training")
    test = _choose(raw, test, labels, options.test_per_class, options.seed, "test")
    validation = None
    if options.validation:
        rest, part = stratified(
            torch.from_numpy(train.y), options.validation, generator_for(options.seed, "validation")
        )
        train, validation = _take(train, rest), _take(train, part)
    scaling = None if kind is None else scale.fit(train.x, kind, raw.top, raw.name)
    parts = {"train": train, "test": test, "validation": validation}
    tensors = {part: _tensors(split, scaling, raw) for part, split in parts.items() if split is not None}
    names = tuple(raw.class_names[c] for c in labels)
    data = Data(raw.name, tensors["train"], tensors["test"], names, tensors.get("validation"), scaling)
    data = data.flatten() if options.flatten else data
    return data if options.device is None else data.to(options.device)


def _tensors(split: RawSplit, scaling: scale.Scaling | None, raw: RawData) -> Split:
    x = scale.apply(split.x, scaling)
    if not bool(torch.isfinite(x).all()):
        raise raw.error(
            f"'{split.source}' has features too large for float32: divide them by a constant, "
            "or leave them out"
        )
    return Split(x, torch.from_numpy(split.y))


def _train_and_test(raw: RawData, options: Options) -> tuple[RawSplit, RawSplit]:
    if raw.test is not None:
        if options.test_fraction is not None:
            raise InputError(f"{raw.name!r} has a test set of its own: leave test_fraction out")
        if raw.test.x.shape[1:] != raw.train.x.shape[1:]:
            raise raw.error(
                f"'{raw.test.source}' has samples of shape {raw.test.x.shape[1:]}, "
                f"'{raw.train.source}' of {raw.train.x.shape[1:]}: they do not belong together"
            )
        return raw.train, raw.test
    fraction = raw.test_fraction if options.test_fraction is None else options.test_fraction
    rest, part = stratified(torch.from_numpy(raw.train.y), fraction, generator_for(options.seed, "test"))
    return _take(raw.train, rest), _take(raw.train, part)


def _labels(classes: Sequence[int | str] | None, raw: RawData) -> list[int]:
    """The original labels of the classes asked for, in that order."""
    if classes is None:
        return list(range(len(raw.class_names)))
    found = []
    for entry in classes:
        if isinstance(entry, str):
            if entry not in raw.class_names:
                raise unknown(f"class of {raw.name!r}", entry, raw.class_names)
            label = raw.class_names.index(entry)
        else:
            label = entry
        if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(raw.class_names):
            raise InputError(
                f"class {entry!r} is not one of {raw.name!r}: expected 0 to {len(raw.class_names) - 1}"
            )
        if label in found:
            raise InputError(f"class {entry!r} is listed twice in classes: list each once")
        found.append(label)
    if not found:
        raise InputError("classes is empty: list at least one class, or None for all")
    return found


def _choose(
    raw: RawData, split: RawSplit, labels: list[int], count: int | None, seed: int, part: str
) -> RawSplit:
    """The samples of some classes, ``count`` of each, in the file's order, labels 0 to len(labels) - 1."""
    if count is None and labels == list(range(len(raw.class_names))):
        return split
    y = torch.from_numpy(split.y)
    chosen = []
    for label in labels:
        title = f"class {raw.class_names[label]!r} of {raw.name!r}"
        chosen.append(of_class(y, label, count, seed, part, title))
    index = torch.cat(chosen).sort().values
    if not len(index):
        names = ", ".join(repr(raw.class_names[c]) for c in labels)
        raise InputError(f"{raw.name!r} has no {part} samples of {names}: choose other classes")
    taken = _take(split, index)
    remap = np.full(len(raw.class_names), -1, dtype=np.int64)
    remap[labels] = np.arange(len(labels))
    return replace(taken, y=remap[taken.y])


def _take(split: RawSplit, index: Tensor) -> RawSplit:
    return replace(split, x=split.x[index.numpy()], y=split.y[index.numpy()])
