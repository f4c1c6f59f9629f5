"""Any torch Dataset, read once and held as one tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import TensorDataset

from regraft.data.prepare import Options, prepare
from regraft.data.raw import Array, RawData, RawSplit, whole_numbers
from regraft.data.split import Data, Split
from regraft.errors import InputError


def from_dataset(
    train: Any,
    test: Any = None,
    *,
    name: str = "dataset",
    class_names: Sequence[str] | None = None,
    classes: Sequence[int | str] | None = None,
    per_class: int | None = None,
    test_per_class: int | None = None,
    test_fraction: float | None = None,
    validation: float = 0.0,
    seed: int = 0,
    standardise: bool | str = False,
    flatten: bool = False,
    device: torch.device | str | None = None,
) -> Data:
    """A torch ``Dataset`` of pairs (sample, label) as ``Data``: each sample is read once, so random
    augmentation inside the dataset is drawn once too.

    Samples are tensors, arrays, numbers or Pillow images of one shape; labels whole numbers from 0. Images
    are [channels, height, width]. Values are left as they are by default: such datasets often scale already.

    Args:
        train: map-style or iterable dataset, or a ``Split``.
        test: likewise; None takes ``test_fraction`` (default 0.25) of ``train`` off, stratified by class.
        name: the set's name.
        class_names: one per label; default the dataset's ``classes`` attribute, else "0", "1", ...

    The other arguments are those of ``load``.

    >>> from torch.utils.data import TensorDataset
    >>> made = from_dataset(TensorDataset(torch.rand(8, 3), torch.tensor([0, 1] * 4)), test_fraction=0.5)
    >>> made.input_shape, made.train.counts(), made.test.counts()
    ((3,), [2, 2], [2, 2])

    Raises:
        InputError: no samples, no pairs, samples of different shapes, labels out of range, NaN samples.
    """
    options = Options(
        classes, per_class, test_per_class, test_fraction, validation, seed, standardise, flatten, device
    )
    options.check()
    held = _collect(train, f"{name} (train)")
    held_test = None if test is None else _collect(test, f"{name} (test)")
    names = class_names if class_names is not None else getattr(train, "classes", None)
    if names is None or isinstance(names, int):
        highest = max(int(split.y.max(initial=0)) for split in (held, held_test) if split is not None)
        names = [str(i) for i in range(highest + 1)]
    top = 255.0 if held.x.dtype == np.uint8 else None
    raw = RawData(
        name, held, held_test, tuple(str(n) for n in names), images=held.x.ndim == 4, top=top,
        test_fraction=0.25, error=InputError,
    )  # fmt: skip
    return prepare(raw, options)


def _collect(dataset: Any, source: str) -> RawSplit:
    if isinstance(dataset, Split):
        dataset = TensorDataset(dataset.x, dataset.y)
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        x, y = (t.detach().cpu().numpy() for t in dataset.tensors)
        return RawSplit(x, whole_numbers(y, source, InputError), source)
    samples, labels = [], []
    for i, item in enumerate(_items(dataset, source)):
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise InputError(
                f"item {i} of '{source}' is a {type(item).__name__}: expected a pair (sample, label)"
            )
        samples.append(_array(item[0]))
        labels.append(_array(item[1]))
        if samples[-1].shape != samples[0].shape:
            raise InputError(
                f"sample {i} of '{source}' has shape {samples[-1].shape}, sample 0 has {samples[0].shape}: "
                "expected one shape; resize them in the dataset's transform"
            )
        if labels[-1].size != 1:
            raise InputError(
                f"label {i} of '{source}' has shape {labels[-1].shape}: expected one whole number"
            )
    if not samples:
        raise InputError(f"'{source}' is empty: expected at least one sample")
    x = np.stack(samples)
    return RawSplit(x, whole_numbers(np.stack([v.reshape(()) for v in labels]), source, InputError), source)


def _items(dataset: Any, source: str) -> Iterator[Any]:
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        # not iter(): many map-style datasets never raise the IndexError that it would wait for
        return (dataset[i] for i in range(len(dataset)))
    if isinstance(dataset, Iterable):
        return iter(dataset)
    raise InputError(f"'{source}' is a {type(dataset).__name__}: expected a torch Dataset")


def _array(value: Any) -> Array:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    array: Array = np.asarray(value)
    # Pillow images, by duck typing: channels come last there, and grey has none
    if hasattr(value, "getbands"):
        return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return array
