"""CIFAR-10 and CIFAR-100, python version (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from regraft.data.paths import first_folder, missing
from regraft.data.raw import Array, RawData, RawSplit, whole_numbers
from regraft.data.unpickle import read_pickle
from regraft.errors import FileError

HOME = "https://www.cs.toronto.edu/~kriz/cifar.html (the python version, unpacked)"
CIFAR10_NEEDED = (("data_batch_1",), ("test_batch",), ("batches.meta",))
CIFAR100_NEEDED = (("train",), ("test",), ("meta",))


def read_cifar10(name: str, folders: list[Path], downloadable: bool) -> RawData:
    """``data_batch_1``, ``data_batch_2``, ... and ``test_batch``, any number of images each.

    Raises:
        FileError: files missing, corrupt or malicious.
    """
    folder = first_folder(folders, CIFAR10_NEEDED)
    if folder is None:
        files = "data_batch_1 to data_batch_5, test_batch, batches.meta"
        raise missing("CIFAR-10", folders, files, HOME, downloadable)
    held = sorted(p.name for p in folder.glob("data_batch_*") if p.is_file())
    paths = [folder / f"data_batch_{i + 1}" for i in range(len(held))]
    gap = next((p for p in paths if not p.is_file()), None)
    if gap is not None:
        raise FileError(f"'{folder}' has {', '.join(held)}, but not {gap.name}: fetch the set again")
    batches = [_batch(path, "labels") for path in paths]
    x, y = np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])
    train = RawSplit(x, y, str(folder / "data_batch_*"))
    test = RawSplit(*_batch(folder / "test_batch", "labels"), str(folder / "test_batch"))
    names = _names(folder / "batches.meta", "label_names")
    return RawData(name, train, test, names, images=True, top=255.0)


def read_cifar100(name: str, folders: list[Path], coarse: bool) -> RawData:
    """``train``, ``test`` and ``meta``, any number of images each; 100 fine or 20 coarse labels.

    Raises:
        FileError: files missing, corrupt or malicious.
    """
    folder = first_folder(folders, CIFAR100_NEEDED)
    if folder is None:
        raise missing("CIFAR-100", folders, "train, test, meta", HOME, downloadable=False)
    kind = "coarse" if coarse else "fine"
    train, test = (
        RawSplit(*_batch(folder / part, f"{kind}_labels"), str(folder / part)) for part in ("train", "test")
    )
    names = _names(folder / "meta", f"{kind}_label_names")
    return RawData(name, train, test, names, images=True, top=255.0)


def _batch(path: Path, label_key: str) -> tuple[Array, Array]:
    held = read_pickle(path)
    data = _entry(held, "data", path)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        found = f"{data.dtype} of shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise FileError(f"the images in '{path}' are {found}: expected uint8 of shape (n, 3072)")
    labels = _entry(held, label_key, path)
    if not isinstance(labels, list | np.ndarray) or not all(isinstance(v, int | np.integer) for v in labels):
        raise FileError(f"{label_key!r} in '{path}' is not a list of whole numbers")
    y = whole_numbers(labels, str(path))
    if len(y) != len(data):
        raise FileError(f"'{path}' has {len(data)} images, but {len(y)} labels: fetch it again")
    # a row is 1024 red, 1024 green and 1024 blue values, each 32 x 32 row by row
    return data.reshape(-1, 3, 32, 32), y


def _names(path: Path, key: str) -> tuple[str, ...]:
    names = _entry(read_pickle(path), key, path)
    if not isinstance(names, list) or not names or not all(isinstance(n, bytes | str) for n in names):
        raise FileError(f"{key!r} in '{path}' is not a list of names")
    return tuple(n.decode("latin1") if isinstance(n, bytes) else n for n in names)


def _entry(held: dict[str, Any], key: str, path: Path) -> Any:
    if key not in held:
        found = ", ".join(repr(k) for k in held) or "none"
        raise FileError(f"'{path}' has no entry {key!r} (it has: {found}): it is another set's file")
    return held[key]
