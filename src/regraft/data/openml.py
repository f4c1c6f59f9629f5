"""Fetching sets from OpenML through scikit-learn, stored as the original files would be."""

from __future__ import annotations

import os
import pickle
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.data.idx import idx_bytes
from regraft.data.raw import whole_numbers
from regraft.errors import FileError

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Source:
    """A set on OpenML.

    Attributes:
        data_id: its number there (a fixed version of it).
        shape: of one sample.
        test_counts: test samples per class, which come last; they show whether the order is the original.
        samples: all of them.
        write: how to store it.
    """

    data_id: int
    shape: tuple[int, ...]
    test_counts: tuple[int, ...]
    samples: int
    write: Callable[[Bytes, NDArray[np.int64], int], dict[str, bytes]]


def fetch(name: str, source: Source, folder: Path) -> None:
    """Download a set and write its files into ``folder``: all of them, or none if anything fails before.

    The rows come in the original order, the test samples last; that is checked by their number per class.

    Raises:
        FileError: no network, another answer than expected, or ``folder`` cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder.parent) as scratch:
            x, y = _download(name, source, scratch)
            test = sum(source.test_counts)
            files = source.write(x, y, len(x) - test)
            for file, content in files.items():
                with (Path(scratch) / file).open("wb") as out:
                    out.write(content)
                    out.flush()
                    os.fsync(out.fileno())
            folder.mkdir(exist_ok=True)
            for file in files:
                (Path(scratch) / file).replace(folder / file)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"cannot write {name!r} to '{folder}' ({error}): choose another data_dir") from error


def _download(name: str, source: Source, scratch: str) -> tuple[Bytes, NDArray[np.int64]]:
    from sklearn.datasets import fetch_openml

    # the parser "pandas" is faster, and fails on classes that are numbers (scikit-learn 1.9 with pandas 3)
    parser = "liac-arff"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bunch = fetch_openml(
                data_id=source.data_id, data_home=scratch, as_frame=False, parser=parser, n_retries=1
            )
        return _check(name, source, bunch)
    except FileError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise FileError(
            f"cannot download {name!r} from OpenML ({reason}): check the network, "
            "or put the original files into the data folder yourself"
        ) from error


def _check(name: str, source: Source, bunch: Any) -> tuple[Bytes, NDArray[np.int64]]:
    x = np.asarray(bunch.data)
    y = whole_numbers(np.asarray(bunch.target).astype(np.float64), f"OpenML {source.data_id}")
    test = sum(source.test_counts)
    counts = (
        tuple(np.bincount(y[-test:], minlength=len(source.test_counts)).tolist()) if (y >= 0).all() else ()
    )
    pixels = x.size > 0 and x.min() >= 0 and x.max() <= 255
    if x.shape != (source.samples, int(np.prod(source.shape))) or len(y) != len(x) or not pixels:
        raise FileError(
            f"OpenML's {name!r} has shape {x.shape}: expected {source.samples} images of {source.shape}, "
            "0 to 255; nothing was written"
        )
    if counts != source.test_counts:
        raise FileError(
            f"the last {test} images of OpenML's {name!r} have {counts} per class, not {source.test_counts}: "
            "they are not the test set, so nothing was written"
        )
    return x.astype(np.uint8).reshape(-1, *source.shape), y


def as_idx(x: Bytes, y: NDArray[np.int64], train: int) -> dict[str, bytes]:
    """The four files of MNIST's format."""
    labels = y.astype(np.uint8)
    return {
        "train-images-idx3-ubyte.gz": idx_bytes(x[:train]),
        "train-labels-idx1-ubyte.gz": idx_bytes(labels[:train]),
        "t10k-images-idx3-ubyte.gz": idx_bytes(x[train:]),
        "t10k-labels-idx1-ubyte.gz": idx_bytes(labels[train:]),
    }


def as_cifar10(names: tuple[str, ...]) -> Callable[[Bytes, NDArray[np.int64], int], dict[str, bytes]]:
    """The files of CIFAR-10's python version, five training batches."""

    def write(x: Bytes, y: NDArray[np.int64], train: int) -> dict[str, bytes]:
        batches = np.array_split(np.arange(train), 5)
        rows = {f"data_batch_{i + 1}": batch for i, batch in enumerate(batches)}
        rows["test_batch"] = np.arange(train, len(x))
        files = {
            file: {
                "data": np.ascontiguousarray(x[index].reshape(len(index), -1)),
                "labels": y[index].tolist(),
            }
            for file, index in rows.items()
        }
        meta = {"label_names": list(names), "num_vis": 3072}
        return {
            file: pickle.dumps(held, protocol=2) for file, held in {**files, "batches.meta": meta}.items()
        }

    return write
