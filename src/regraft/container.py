"""The safetensors container: a checked table of tensors in front of their bytes, and atomic writing.

Only what regraft needs beyond the safetensors package is here: reading slices without mapping the whole
file, writing tensors piece by piece, and refusing damaged files with a sentence instead of a crash.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regraft.errors import FileError

PathLike = str | os.PathLike[str]

MAX_HEADER = 32 * 2**20
"""Longest table that is read, in bytes."""

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
CODES = {dtype: code for code, dtype in DTYPES.items()}
_MAX_NUMEL = 2**62


class Entry(NamedTuple):
    """Where a tensor lies in a file: type, shape, and first byte counted from the start of the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Number of bytes."""
        return self.numel * self.dtype.itemsize


@contextmanager
def atomic_write(path: PathLike) -> Iterator[IO[bytes]]:
    """A binary file to write to, that becomes ``path`` when the block ends without an error.

    It is written under a temporary name in the same folder, flushed to the disk and renamed; after an error
    or an interruption the temporary file is removed and what was at ``path`` is untouched.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_write(f"{folder}/a") as file:
    ...         _ = file.write(b"whole")
    ...     print(os.listdir(folder))
    ['a']

    Raises:
        FileError: the folder does not exist or cannot be written to, or the disk is full.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name[:100]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    if target.is_dir():
        raise FileError(f"cannot write '{path}': it is a folder; give the name of a file in it")
    if not target.parent.is_dir():
        raise FileError(f"cannot write '{path}': its folder does not exist; create it first")
    try:
        file = open(temporary, "xb+")  # noqa: SIM115
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except FileError:
        raise
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _cannot_write(path: PathLike, error: OSError) -> FileError:
    return FileError(
        f"cannot write '{path}' ({error.strerror or error}): check the permissions and free space there"
    )


def _sync_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256(path: PathLike) -> str:
    """SHA-256 of a file, in hexadecimal: how provenance names the file it came from.

    Raises:
        FileError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(f"cannot read '{path}': {error.strerror or error}") from error


def header_bytes(entries: Mapping[str, Entry], metadata: Mapping[str, str], room: int = 0) -> bytes:
    """The start of a file: length and table, padded with spaces to a multiple of 8, and to ``room`` bytes if
    that is more.

    ``Entry.start`` counts from the end of this header.
    """
    table: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
    for name, entry in entries.items():
        table[name] = {
            "dtype": CODES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [entry.start, entry.start + entry.nbytes],
        }
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    length = max(len(text) + -len(text) % 8, room - 8)
    return length.to_bytes(8, "little") + text.ljust(length)


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor in row-major order, without a copy where it is contiguous and on the CPU."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data


def read_elements(file: IO[bytes], entry: Entry, start: int, stop: int) -> npt.NDArray[np.uint8] | None:
    """The bytes of the elements ``[start, stop)`` of a flattened tensor; None where the file ends before."""
    width = entry.dtype.itemsize
    raw = np.empty((stop - start) * width, dtype=np.uint8)
    file.seek(entry.start + start * width)
    done = 0
    while done < raw.nbytes:
        got = file.readinto(raw[done:])  # type: ignore[attr-defined]
        if not got:
            return None
        done += got
    return raw


def corrupt(path: PathLike, why: str) -> FileError:
    """The error for a damaged file."""
    return FileError(f"'{path}' is corrupt ({why}): copy it again, or write it anew")


def truncated(path: PathLike, why: str) -> FileError:
    """The error for a file that ends too early."""
    return FileError(f"'{path}' is truncated ({why}): copy it again, or write it anew")


def read_table(file: IO[bytes], path: PathLike) -> tuple[dict[str, Entry], dict[str, Any]]:
    """The table of tensors and the metadata, checked against the length of the file; no tensor is read.

    Raises:
        FileError: not safetensors, truncated, or corrupt.
    """
    total = os.fstat(file.fileno()).st_size
    start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    if len(start) < 9 or start[8:] != b"{" or length > MAX_HEADER:
        raise FileError(
            f"'{path}' is not a network file: a safetensors file was expected, as `regraft train` and "
            "`regraft.save` write it"
        )
    if length > total - 8:
        raise truncated(path, f"it ends within its header of {length} bytes")
    file.seek(8)
    table = parse_json(file.read(length))
    if not isinstance(table, dict):
        raise corrupt(path, "its header is not valid JSON")
    metadata = table.pop("__metadata__", None)
    entries = {name: _entry(path, name, raw, 8 + length) for name, raw in table.items()}
    _check_coverage(path, entries, 8 + length, total)
    return entries, metadata if isinstance(metadata, dict) else {}


def _entry(path: PathLike, name: str, raw: Any, data: int) -> Entry:
    fields = raw if isinstance(raw, dict) else {}
    dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise corrupt(path, f"the tensor '{name}' has the unknown type {dtype!r}")
    if not is_shape(shape) or not is_shape(offsets) or len(offsets) != 2:
        raise corrupt(path, f"the entry of the tensor '{name}' is malformed")
    entry = Entry(DTYPES[dtype], tuple(shape), data + offsets[0])
    if offsets[1] - offsets[0] != entry.nbytes:
        raise corrupt(path, f"the tensor '{name}' has another length than its shape says")
    return entry


def _check_coverage(path: PathLike, entries: Mapping[str, Entry], data: int, total: int) -> None:
    """Tensors must cover the data without gaps or overlaps, as the format asks."""
    at = data
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if entry.start != at:
            raise corrupt(path, f"the tensor '{name}' does not start where the one before it ends")
        at += entry.nbytes
    if at > total:
        raise truncated(path, f"it has {total} of {at} bytes")
    if at < total:
        raise corrupt(path, f"{total - at} bytes follow its last tensor")


def parse_json(text: str | bytes) -> Any:
    """Strict JSON, without duplicated names, NaN and infinities; None for anything else."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name occurs twice")
    return made


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def is_shape(value: Any) -> TypeGuard[list[int]]:
    """Whether ``value`` is a list of non-negative integers whose product a 64-bit number holds."""
    return (
        isinstance(value, list)
        and len(value) <= 64
        and all(type(n) is int and 0 <= n <= _MAX_NUMEL for n in value)
        and math.prod(max(n, 1) for n in value) <= _MAX_NUMEL
    )
