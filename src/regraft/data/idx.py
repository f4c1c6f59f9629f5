"""The idx format of MNIST and Fashion-MNIST, plain or gzipped (http://yann.lecun.com/exdb/mnist)."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from regraft.data.paths import first_folder, missing, most_unpacked, one_of
from regraft.data.raw import RawData, RawSplit
from regraft.errors import FileError

_UBYTE = 0x08
_CHUNK = 1 << 24

PARTS = {"train": "train", "test": "t10k"}
FILES = tuple(f"{s}-{k}" for s in PARTS.values() for k in ("images-idx3-ubyte", "labels-idx1-ubyte"))
NEEDED = tuple((f"{file}.gz", file) for file in FILES)


def read_idx(path: Path, ndim: int) -> NDArray[np.uint8]:
    """The bytes of an idx file as an array of ``ndim`` dimensions.

    Layout: two zero bytes, the type (8: unsigned byte), the number of dimensions, each dimension as a
    big-endian 32-bit number, then the bytes in row-major order. Gzipped content is recognised by its first
    two bytes, whatever the file's name.

    Raises:
        FileError: missing, truncated, another magic number, bytes left over.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            length = os.fstat(raw.fileno()).st_size
            if packed:
                with gzip.GzipFile(fileobj=raw) as stream:
                    return _parse(stream, path, ndim, most_unpacked(length))
            return _parse(raw, path, ndim, length)
    except FileNotFoundError as error:
        raise FileError(f"there is no file '{path}': expected an idx file") from error
    except FileError:
        raise
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        raise FileError(
            f"cannot read '{path}' ({error}): it is corrupt or cut short, fetch it again"
        ) from error


def _parse(stream: BufferedIOBase, path: Path, ndim: int, most: int) -> NDArray[np.uint8]:
    header = stream.read(4 + 4 * ndim)
    expected = _UBYTE << 8 | ndim
    if len(header) >= 4 and header[:4] != bytes([0, 0, _UBYTE, ndim]):
        magic = struct.unpack(">I", header[:4])[0]
        what = "images" if ndim == 3 else "labels"
        raise FileError(
            f"'{path}' is no idx file of {what}: its magic number is {magic}, expected {expected}"
        )
    if len(header) < 4 + 4 * ndim:
        raise FileError(f"'{path}' ends within its header of {4 + 4 * ndim} bytes: fetch it again")
    shape = struct.unpack(f">{ndim}I", header[4:])
    size = math.prod(shape)
    # as much as may come, and in pieces: a corrupt header may promise more bytes than there is memory
    body, filled = np.empty(min(size, most) + 1, dtype=np.uint8), 0
    while filled < len(body) and (more := stream.readinto(body.data[filled : filled + _CHUNK])):
        filled += more
    if filled > most:
        raise FileError(
            f"'{path}' unpacks to more than {most:,} bytes, a hundred times its length: unpack it yourself "
            "if you trust it"
        )
    if filled != size:
        found = f"only {filled}" if filled < size else "more"
        raise FileError(f"'{path}' promises {size} bytes of shape {shape}, but holds {found}: fetch it again")
    return body[:size].reshape(shape)


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """``array`` as the content of a gzipped idx file, the same bytes each time.

    >>> len(gzip.decompress(idx_bytes(np.zeros((2, 3, 3), dtype=np.uint8))))
    34
    """
    header = struct.pack(f">4B{array.ndim}I", 0, 0, _UBYTE, array.ndim, *array.shape)
    return gzip.compress(header + np.ascontiguousarray(array).tobytes(), compresslevel=6, mtime=0)


def read(
    name: str, title: str, folders: list[Path], class_names: tuple[str, ...], home: str, downloadable: bool
) -> RawData:
    """MNIST or a set of its format from the first folder that has its four files.

    Raises:
        FileError: no folder has them, or one of them cannot be used.
    """
    folder = first_folder(folders, NEEDED)
    if folder is None:
        listed = ", ".join(FILES)
        raise missing(title, folders, f"{listed} (each plain or .gz)", home, downloadable)
    splits = {}
    for i, part in enumerate(PARTS):
        images, labels = (one_of(folder, names) for names in NEEDED[2 * i : 2 * i + 2])
        x, y = read_idx(images, 3), read_idx(labels, 1)
        splits[part] = RawSplit(x[:, None], y.astype(np.int64), str(images), str(labels))
    return RawData(name, splits["train"], splits["test"], class_names, images=True, top=255.0)
