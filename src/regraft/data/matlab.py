"""Numbers from MATLAB's level 5 .mat files (MathWorks, "MAT-File Format", chapter 1).

``scipy.io.loadmat`` reads more kinds of files, but a few corrupt bytes make it read outside its memory and
end the process. The sets here need full matrices of numbers alone, which take little code to read with
every length checked.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from regraft.data.paths import most_unpacked, reading
from regraft.data.raw import Array
from regraft.errors import FileError

_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {
    6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8",
}  # fmt: skip
_OTHER = {1: "a cell array", 2: "a structure", 3: "an object", 4: "text", 5: "sparse", 16: "a function"}
_MATRIX, _COMPRESSED, _INT8, _INT32, _UINT32 = 14, 15, 1, 5, 6
_COMPLEX = 0x08
_FREE = 2**23  # whole numbers of one byte may become numbers of eight


def read_matrices(path: Path, names: tuple[str, ...]) -> dict[str, Array]:
    """The matrices called ``names`` that a level 5 file holds; other variables are skipped.

    Raises:
        FileError: missing, truncated, corrupt, of another level, or one of ``names`` is not a full matrix of
            real numbers.
    """
    found: dict[str, Array] = {}
    with reading(path, "a MATLAB .mat file (version 5 to 7.2)"):
        content = path.read_bytes()
        order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
        if content.startswith(b"\x89HDF") or content[512:516] == b"\x89HDF" or b"MATLAB 7.3" in content[:128]:
            raise FileError(f"'{path}' is of version 7.3: save it again with save(..., '-v7')")
        if len(content) < 128 or order is None:
            raise FileError(f"'{path}' is no MATLAB .mat file of version 5 to 7.2: fetch it again")
        for kind, body in _elements(content[128:], order, padded=False):
            if kind == _COMPRESSED:
                [(kind, body)] = _elements(_unpack(body), order, padded=False)
            if kind == _MATRIX:
                _matrix(body, order, names, path, found)
    return found


def _elements(content: bytes, order: str, *, padded: bool) -> Iterator[tuple[int, bytes]]:
    """(type, bytes) of each data element; up to four bytes may lie in the tag itself."""
    start = 0
    while start < len(content):
        if start + 8 > len(content):
            raise ValueError("it ends within a tag")
        tag = np.frombuffer(content, dtype=f"{order}u4", count=2, offset=start)
        kind, size, body = int(tag[0]), int(tag[1]), start + 8
        if kind >> 16:
            kind, size, body = kind & 0xFFFF, kind >> 16, start + 4
        end = body + size
        if end > len(content) or (body == start + 4 and size > 4):
            raise ValueError(f"an element of {size} bytes where {len(content) - body} are left")
        yield kind, content[body:end]
        start = start + 8 if body == start + 4 else end + (-size % 8 if padded else 0)


def _unpack(content: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    most = most_unpacked(len(content), _FREE)
    made = unpacker.decompress(content, most)
    if not unpacker.eof:
        end = f"take more than {most:,} bytes" if len(made) == most else "end too early"
        raise ValueError(f"compressed numbers {end}")
    return made


def _matrix(body: bytes, order: str, names: tuple[str, ...], path: Path, found: dict[str, Array]) -> None:
    parts = _elements(body, order, padded=True)
    flags = _numbers(*next(parts), order, _UINT32)
    shape = tuple(_numbers(*next(parts), order, _INT32).tolist())
    name = _numbers(*next(parts), order, _INT8).tobytes().decode("latin1")
    if name not in names:
        return
    if len(flags) != 2 or len(shape) < 2 or min(shape) < 0:
        raise ValueError(f"a matrix of shape {shape}")
    code = int(flags[0]) & 0xFF
    if code not in _CLASSES or int(flags[0]) >> 8 & _COMPLEX:
        what = _OTHER.get(code, "of an unknown class") if code not in _CLASSES else "complex"
        raise FileError(f"{name} in '{path}' is {what}: expected a full matrix of real numbers")
    kind, raw = next(parts)
    values = _numbers(kind, raw, order, kind)
    if len(values) != math.prod(shape):
        raise ValueError(f"{len(values)} numbers for the shape {shape}")
    found[name] = values.astype(_CLASSES[code]).reshape(shape, order="F")


def _numbers(kind: int, raw: bytes, order: str, expected: int) -> Array:
    if kind != expected or kind not in _STORED:
        raise ValueError(f"an element of type {kind}")
    return np.frombuffer(raw, dtype=order + _STORED[kind])
