"""The safetensors container: a checked table of tensors in front of their bytes, and atomic writing.

Only what regraft needs beyond the safetensors package is here: reading slices without mapping the whole
file, writing tensors piece by piece, and refusing damaged files with a sentence instead of a crash.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import platform
import secrets
import stat
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

    What a killed process left behind is used up by the next one that writes the same file. A path that is
    neither file nor folder, such as ``/dev/stdout`` or a pipe, is written to as it is.

    Raises:
        FileError: the folder does not exist or cannot be written to, or the disk is full.
    """
    if is_device(path):
        with telling(path), open(path, "wb") as device:
            yield device
        return
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise FileError(f"cannot write '{path}': it is a folder; give the name of a file in it")
    if not target.parent.is_dir():
        raise FileError(f"cannot write '{path}': its folder does not exist; create it first")
    with telling(path):
        file, temporary = _temporary(target)
        with file:  # closed last: as long as it is open, its lock says that it is being written
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        _sync_folder(target.parent)


def is_device(path: PathLike) -> bool:
    """Whether what is at ``path`` is neither a file nor a folder: a terminal, a pipe, ``/dev/null``.

    >>> is_device("/dev/null"), is_device("."), is_device("nothing there")
    (True, False, False)
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _temporary(target: Path) -> tuple[IO[bytes], Path]:
    """An empty file beside ``target``: the same each time, so that leftovers do not pile up, and another one
    where that is being written or is not ours."""
    usual = target.with_name(f".{_short(target.name)}.tmp")
    with contextlib.suppress(OSError):
        file = open(usual, "rb+", opener=_open_or_make)  # noqa: SIM115
        descriptor = file.fileno()
        if _is_ours(descriptor) and _take(descriptor) and _is_at(descriptor, usual):
            file.truncate(0)
            return file, usual
        file.close()
    other = target.with_name(f".{_short(target.name)}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    return open(other, "xb+"), other


def _open_or_make(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _short(name: str) -> str:
    """The name, or the start of one so long that no more fits; told from others by its hash."""
    if len(os.fsencode(name)) <= 200:
        return name
    return f"{name[:40]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"


def _is_ours(descriptor: int) -> bool:
    """Whether an open file is an ordinary one of this user, under one name only."""
    found = os.fstat(descriptor)
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == os.geteuid()


def _take(descriptor: int) -> bool | None:
    """Lock an open file until it is closed or the process ends; False where another holds it, None where
    there are no such locks."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one at ``path``: the process that held it may have moved it."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


@contextmanager
def only_one(folder: PathLike, name: str = ".lock") -> Iterator[None]:
    """Within the block no other process, and nothing else in this one, may enter a block for ``folder``.

    The lock is a file in the folder, held by the operating system: it goes with the process, however that
    ends. File systems without locks let everybody in.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, only_one(folder):
    ...     try:
    ...         with only_one(folder):
    ...             pass
    ...     except FileError as error:
    ...         print(str(error).startswith("another run writes into"))
    True

    Raises:
        FileError: another run holds the folder, or it cannot be written to.
    """
    place = Path(folder) / name
    with _hold(place, folder) as file:
        try:
            with telling(folder):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {platform.node()}".encode())
            yield
        finally:
            with contextlib.suppress(OSError):
                place.unlink()  # while it is held: who has it open sees that it is gone, and makes another


def _hold(place: Path, folder: PathLike) -> IO[bytes]:
    while True:
        try:
            file = open(place, "ab+", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise _cannot_write(folder, error) from error
        if _take(file.fileno()) is False:
            with file:
                file.seek(0)
                holder = file.read(200).decode(errors="replace") or "one that has just begun"
            raise FileError(
                f"another run writes into '{folder}' ({holder}): wait for it, or name another folder"
            )
        if _is_at(file.fileno(), place):
            return file
        file.close()


@contextmanager
def telling(path: PathLike) -> Iterator[None]:
    """Within the block what the operating system says against writing ``path`` becomes a FileError."""
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: PathLike, error: OSError) -> FileError:
    return FileError(
        f"cannot write '{path}' ({error.strerror or error}): check the permissions and free space there"
    )


def _sync_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut, where the system can and lets us look at the folder."""
    if hasattr(os, "O_DIRECTORY"):
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOTSUP):
                raise


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
    if not all(is_text(name) for name in table):
        raise corrupt(path, "the name of a tensor holds half characters")
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


def parse_json(text: Any) -> Any:
    """Strict JSON, without duplicated names, NaN and infinities; None for all else, text or not."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except (TypeError, ValueError, RecursionError):
        return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name occurs twice")
    return made


def is_text(name: str) -> bool:
    """Whether UTF-8 can hold it: JSON may write half a character."""
    try:
        return bool(name.isascii() or name.encode())
    except UnicodeEncodeError:
        return False


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # 1e999
        raise ValueError(f"{text} is beyond a number of 64 bits")
    return number


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
