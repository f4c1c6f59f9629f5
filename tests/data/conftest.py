"""Small files in the real formats, written independently of the code that reads them."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from regraft.errors import RegraftError


def idx_content(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x0800 | array.ndim, *array.shape) + array.tobytes()


def python2_pickle(value: Any) -> bytes:
    """Protocol 2 as Python 2 wrote it: every string, also an array's bytes, as (SHORT_)BINSTRING."""

    class Python2(pickle._Pickler):
        dispatch: ClassVar = dict(pickle._Pickler.dispatch)

        def _string(self, obj: bytes | str) -> None:
            raw = obj.encode("latin1") if isinstance(obj, str) else obj
            short = len(raw) < 256
            self.write((b"U" + bytes([len(raw)]) if short else b"T" + struct.pack("<i", len(raw))) + raw)
            self.memoize(obj)

        dispatch[str] = _string
        dispatch[bytes] = _string

    out = io.BytesIO()
    Python2(out, protocol=2).dump(value)
    return out.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def cifar_batch(n: int, seed: int, **labels: list[int]) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "data": rng.integers(0, 256, (n, 3072), dtype=np.uint8),
        "filenames": [f"image_s_{i:06d}.png" for i in range(n)],
        "batch_label": f"batch of {n}",
        **labels,
    }


@pytest.fixture
def write_idx() -> Callable[..., Path]:
    """Write the four files of an idx set: random images, labels 0 to 9 in turn."""

    def write(folder: Path, train: int = 40, test: int = 20, packed: bool = True) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(3)
        for stem, n in (("train", train), ("t10k", test)):
            x = rng.integers(0, 256, (n, 5, 4), dtype=np.uint8)
            y = (np.arange(n) % 10).astype(np.uint8)
            for kind, array in (("images-idx3-ubyte", x), ("labels-idx1-ubyte", y)):
                content = idx_content(array)
                if packed:
                    (folder / f"{stem}-{kind}.gz").write_bytes(gzip.compress(content))
                else:
                    (folder / f"{stem}-{kind}").write_bytes(content)
        return folder

    return write


@pytest.fixture
def write_cifar100() -> Callable[..., Path]:
    """Write a CIFAR-100 folder of 6 fine and 2 coarse classes."""

    def write(folder: Path, dump: Callable[[Any], bytes] = python2_pickle) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for part, n, seed in (("train", 24, 0), ("test", 12, 1)):
            fine = [i % 6 for i in range(n)]
            held = cifar_batch(n, seed, fine_labels=fine, coarse_labels=[f % 2 for f in fine])
            (folder / part).write_bytes(dump(held))
        meta = {"fine_label_names": list("abcdef"), "coarse_label_names": ["even", "odd"]}
        (folder / "meta").write_bytes(dump(meta))
        return folder

    return write


@pytest.fixture
def write_cifar10() -> Callable[..., Path]:
    """Write a CIFAR-10 folder with ``batches`` training batches of different sizes."""

    def write(folder: Path, batches: int = 2) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(batches):
            n = 10 + 10 * i
            held = cifar_batch(n, i, labels=[k % 10 for k in range(n)])
            (folder / f"data_batch_{i + 1}").write_bytes(python2_pickle(held))
        held = cifar_batch(10, 9, labels=list(range(10)))
        (folder / "test_batch").write_bytes(python2_pickle(held))
        names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
        (folder / "batches.meta").write_bytes(python2_pickle({"label_names": names, "num_vis": 3072}))
        return folder

    return write


@pytest.fixture
def python2() -> Callable[[Any], bytes]:
    return python2_pickle


@pytest.fixture
def refusal() -> Callable[[Callable[[], object]], str | None]:
    """Call something; the message of our error if it raises one. Anything else it raises passes."""

    def attempt(call: Callable[[], object]) -> str | None:
        try:
            call()
        except RegraftError as error:
            return str(error)
        return None

    return attempt


@pytest.fixture
def corrupted() -> Callable[..., bytes]:
    """Cut ``content`` and overwrite some of its bytes, as ``cut`` and ``changes`` say."""

    def corrupt(content: bytes, cut: float, changes: list[tuple[float, int]]) -> bytes:
        made = bytearray(content[: max(1, round(cut * len(content)))])
        for where, value in changes:
            made[min(int(where * len(made)), len(made) - 1)] = value
        return bytes(made)

    return corrupt
