"""Network files: safetensors with sorted positions and values, read whole or slice by slice.

A file holds, for each sparse weight ``w``, the tensors ``w.index`` (int32 where the weight has fewer than
2^31 positions, else int64) and ``w.values``; every other entry of a state dict stands under its own name. The
metadata key ``regraft`` holds the ``Header`` as JSON. Any safetensors reader can open such a file.

Nothing in a file is trusted: sizes are checked against the length of the file before anything is allocated,
positions must be sorted and in range, values finite.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regraft import container, positions
from regraft.container import Entry, PathLike, atomic_write, sha256
from regraft.errors import FileError, InputError, MismatchError
from regraft.version import __version__

__all__ = [
    "FORMAT", "Entry", "Header", "NetworkFile", "NetworkWriter", "PathLike", "atomic_write", "index_dtype",
    "read_network", "sha256", "versions", "write_network",
]  # fmt: skip

FORMAT = 1
"""The newest file format that this version reads, and the one it writes."""


@dataclass(frozen=True)
class Header:
    """What a network file says about itself.

    Attributes:
        shapes: dense shape of each sparse weight, by weight name (``"0.weight"``).
        model: the specification that ``regraft.models.build`` takes, or None for a model of the user's own.
        provenance: where the network came from; plain JSON values.
        versions: versions of the software that wrote the file; filled in when it is written.
        format: version of the file format.
        buffers: names of the plain tensors that are no parameters; merging averages them.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    model: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT
    buffers: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The header as JSON text; the same header always gives the same text.

        Raises:
            InputError: the model or the provenance holds something that JSON cannot.
        """
        plain = {
            "format": self.format,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "model": None if self.model is None else dict(self.model),
            "provenance": dict(self.provenance),
            "versions": dict(self.versions) or versions(),
            "buffers": list(self.buffers),
        }
        try:
            return json.dumps(plain, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"the header of a network file cannot be written as JSON ({error}): use text, "
                "finite numbers, lists and dicts in the model's spec and the provenance"
            ) from error


def versions() -> dict[str, str]:
    """Versions of regraft, torch and Python, for files and reports."""
    return {"regraft": __version__, "torch": str(torch.__version__), "python": platform.python_version()}


def index_dtype(size: int) -> torch.dtype:
    """Type of positions in a file, for a weight of ``size`` positions.

    >>> index_dtype(1000), index_dtype(2**31)
    (torch.int32, torch.int64)
    """
    return torch.int32 if size < 2**31 else torch.int64


def write_network(
    path: PathLike, tensors: Mapping[str, Tensor], header: Header, *, finite: bool = True
) -> None:
    """Write a network file, whole or not at all.

    Args:
        tensors: a state dict: ``"<weight>.index"`` and ``"<weight>.values"`` for each weight in
            ``header.shapes``, and any other tensors by name, on any device.
        header: shapes, model and provenance; its versions are filled in.
        finite: refuse NaN and infinite values. Turn it off for optimizer state only.

    >>> import tempfile
    >>> tensors = {"w.index": torch.tensor([1, 5]), "w.values": torch.tensor([0.5, -1.0])}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_network(f"{folder}/n.safetensors", tensors, Header(shapes={"w": (2, 3)}))
    ...     back, header = read_network(f"{folder}/n.safetensors")
    >>> back["w.index"].tolist(), header.shapes
    ([1, 5], {'w': (2, 3)})

    Raises:
        InputError: a tensor is missing, of a type that the format has not, or holds NaN or infinity;
            positions unsorted or out of range.
        FileError: the file cannot be written.
    """
    ready = {name: tensor.detach() for name, tensor in tensors.items()}
    for name, shape in header.shapes.items():
        index, values = ready.get(f"{name}.index"), ready.get(f"{name}.values")
        if index is None or values is None:
            raise InputError(f"the header names the sparse weight '{name}', but its tensors are missing")
        size = positions.numel(shape)
        index = positions.check(index, size, name=f"{name}.index")
        if values.shape != index.shape or not values.is_floating_point():
            raise MismatchError(
                f"'{name}.values' has shape {tuple(values.shape)} and type {values.dtype}, but must hold one "
                f"floating point number for each of the {index.numel()} positions"
            )
        ready[f"{name}.index"] = index.to(index_dtype(size))
    for name, tensor in ready.items():
        if tensor.dtype not in container.CODES:
            raise InputError(f"'{name}' is of type {tensor.dtype}, which a network file cannot hold")
        if finite and not _is_finite(tensor):
            raise InputError(f"'{name}' holds NaN or infinite values, so the network is not written")
    # wide types first, so that every tensor starts at a multiple of its own width
    order = sorted(ready, key=lambda name: -ready[name].dtype.itemsize)
    entries, at = {}, 0
    for name in order:
        entries[name] = Entry(ready[name].dtype, tuple(ready[name].shape), at)
        at += entries[name].nbytes
    with atomic_write(path) as file:
        table = {name: entries[name] for name in ready}
        file.write(container.header_bytes(table, {"regraft": header.to_json()}))
        for name in order:
            file.write(container.tensor_bytes(ready[name]))


class NetworkWriter:
    """Writes a network file tensor by tensor and piece by piece, when no more than a piece fits into memory.

    Names and numbers of dimensions are known at the start, sizes only at the end: room for the header is left
    and filled by ``finish``.
    """

    def __init__(self, file: IO[bytes], header: Header, dims: Mapping[str, int]) -> None:
        """Start writing to a seekable file.

        Args:
            file: as ``atomic_write`` gives it.
            header: with the shapes of all sparse weights that will follow.
            dims: number of dimensions of each tensor that will follow, in the order of the table.
        """
        longest = {name: Entry(torch.bfloat16, (2**62,) * n, 2**62) for name, n in dims.items()}
        self._file, self._header, self._names = file, header, tuple(dims)
        self._room = len(self._table(longest))
        self._entries: dict[str, Entry] = {}
        self._at = 0
        file.seek(self._room)

    def _table(self, entries: Mapping[str, Entry], room: int = 0) -> bytes:
        return container.header_bytes(entries, {"regraft": self._header.to_json()}, room)

    def tensor(self, name: str, dtype: torch.dtype, pieces: Iterable[Tensor], shape: Sequence[int]) -> None:
        """Write one tensor from its pieces in order; ``shape`` may have one -1 for what the pieces decide."""
        start, count = self._at, 0
        for piece in pieces:
            self._file.write(container.tensor_bytes(piece.to(dtype)))
            count += piece.numel()
        self._at += count * dtype.itemsize
        self._entries[name] = Entry(dtype, tuple(count if n == -1 else n for n in shape), start)

    def weight(self, name: str, dtype: torch.dtype, pieces: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Write one sparse weight from pieces (positions, values) in order of position."""
        narrow = index_dtype(positions.numel(self._header.shapes[name]))
        # their place is after all positions; beside the file, for the usual folder may be small, or in memory
        beside = os.path.dirname(os.path.abspath(self._file.name))
        with tempfile.SpooledTemporaryFile(max_size=2**20, dir=beside) as values:

            def indices() -> Iterator[Tensor]:
                for index, piece in pieces:
                    values.write(container.tensor_bytes(piece.to(dtype)))
                    yield index

            self.tensor(f"{name}.index", narrow, indices(), (-1,))
            values.seek(0)
            shutil.copyfileobj(values, self._file, 2**18)
        count = self._entries[f"{name}.index"].numel
        self._entries[f"{name}.values"] = Entry(dtype, (count,), self._at)
        self._at += count * dtype.itemsize

    def finish(self) -> None:
        """Write the header into the room left for it."""
        self._file.seek(0)
        self._file.write(self._table({name: self._entries[name] for name in self._names}, self._room))


def read_network(path: PathLike, *, finite: bool = True) -> tuple[dict[str, Tensor], Header]:
    """All tensors of a network file, and its header. Positions come back as int64.

    Args:
        finite: refuse NaN and infinite values. Turn it off for optimizer state only.

    Raises:
        FileError: missing, not safetensors, not ours, truncated, of a newer format, positions unsorted or
            out of range, values NaN or infinite.
    """
    with NetworkFile(path, finite=finite) as file:
        tensors = {}
        for name in file.entries:
            tensor = file.read(name)
            tensors[name] = tensor.long() if file.is_index(name) else tensor
        return tensors, file.header


class NetworkFile:
    """A network file open for reading; every slice reads only its own bytes.

    Attributes:
        path: where the file lies.
        header: what it says about itself.
        entries: type, shape and place of each tensor, by name.

    Use it as a context manager, or call ``close``.
    """

    def __init__(self, path: PathLike, *, finite: bool = True) -> None:
        """Open and check the header; no tensor is read.

        Raises:
            FileError: as in ``read_network``, except for what only the tensors themselves can show.
        """
        self.path = Path(path)
        self._finite = finite
        self._file: IO[bytes] | None = None
        self._stamp: tuple[int, ...] | None = None
        try:
            self.entries, metadata = container.read_table(self._open(), self.path)
            self.header = self._check_header(metadata)
        except BaseException:
            self.close()
            raise
        self._numel = {name: entry.numel for name, entry in self.entries.items()}
        self._sizes = {f"{name}.index": positions.numel(s) for name, s in self.header.shapes.items()}

    def _open(self) -> IO[bytes]:
        if self._file is None:
            try:
                self._file = open(self.path, "rb", buffering=0)  # noqa: SIM115
            except OSError as error:
                reason = error.strerror or error
                raise FileError(f"cannot open '{self.path}': {reason}; check the path") from error
            found = os.fstat(self._file.fileno())
            stamp = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
            if self._stamp not in (None, stamp):  # its table would be read with another file's tensors
                self.close()
                raise FileError(f"'{self.path}' was written anew while it was being read: do that again")
            self._stamp = stamp
        return self._file

    def close(self) -> None:
        """Let go of the file; reading from it again opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Dense shape of each sparse weight."""
        return self.header.shapes

    @property
    def nnz(self) -> dict[str, int]:
        """Number of connections of each sparse weight."""
        return {name: self.entries[f"{name}.values"].numel for name in self.shapes}

    @property
    def plain(self) -> tuple[str, ...]:
        """Names of the tensors that belong to no sparse weight: biases, dense weights, buffers."""
        sparse = {f"{name}.{part}" for name in self.shapes for part in ("index", "values")}
        return tuple(name for name in self.entries if name not in sparse)

    def is_index(self, name: str) -> bool:
        """Whether the tensor holds the positions of a sparse weight."""
        return name in self._sizes

    def read(self, name: str) -> Tensor:
        """A whole tensor, checked, in its own shape and type."""
        entry = self.entries[name]
        return self.read_slice(name, 0, entry.numel).view(entry.shape)

    def read_slice(self, name: str, start: int, stop: int) -> Tensor:
        """Elements ``[start, stop)`` of the flattened tensor, checked, in the tensor's own type.

        Positions are checked against the one before the slice too, so reading a weight in slices finds the
        same faults as reading it whole.

        Raises:
            FileError: the file is shorter than its header says, positions unsorted or out of range, values
                NaN or infinite.
        """
        entry = self.entries[name]
        if not 0 <= start <= stop <= self._numel[name]:
            raise InputError(
                f"cannot read [{start}, {stop}) of '{name}', which has {self._numel[name]} elements"
            )
        size = self._sizes.get(name)
        before = 1 if size is not None and start > 0 else 0
        raw = container.read_elements(self._open(), entry, start - before, stop)
        if raw is None:
            raise container.truncated(self.path, f"it ends within '{name}'")
        if not raw.nbytes:
            return torch.empty(0, dtype=entry.dtype)
        flat = torch.from_numpy(raw).view(entry.dtype)
        # the checks are numpy's where it knows the type: on short slices it costs a third of torch
        if size is not None:
            if not _is_increasing(raw.view(np.int32 if entry.dtype == torch.int32 else np.int64), size):
                raise container.corrupt(self.path, _fault(flat, size, name))
        elif self._finite and not _is_finite(flat):
            raise FileError(
                f"'{self.path}' holds NaN or infinite values in '{name}': the network has diverged; train it "
                "with a smaller learning rate, or take an earlier checkpoint"
            )
        return flat[before:]

    def _check_header(self, metadata: Mapping[str, Any]) -> Header:
        if "regraft" not in metadata:
            raise FileError(
                f"'{self.path}' is a safetensors file, but not a network of regraft: load it with "
                "safetensors into a model, then write that with regraft.save"
            )
        text = metadata["regraft"]
        raw = container.parse_json(text) if isinstance(text, str) else None
        version = raw.get("format") if isinstance(raw, dict) else None
        if not isinstance(raw, dict) or type(version) is not int or version < 1:
            raise container.corrupt(self.path, "its regraft header has no format number")
        if version > FORMAT:
            raise FileError(
                f"'{self.path}' has format {version}, but this regraft reads formats up to {FORMAT}: "
                "upgrade regraft"
            )
        shapes, model = raw.get("shapes"), raw.get("model")
        provenance, written_by = raw.get("provenance", {}), raw.get("versions", {})
        buffers = raw.get("buffers", [])
        if not isinstance(shapes, dict) or not all(container.is_shape(shape) for shape in shapes.values()):
            raise container.corrupt(self.path, "its regraft header has no valid shapes")
        if not (
            (model is None or isinstance(model, dict))
            and isinstance(provenance, dict)
            and isinstance(written_by, dict)
            and isinstance(buffers, list)
            and all(isinstance(name, str) for name in buffers)
        ):
            raise container.corrupt(self.path, "its regraft header is malformed")
        for name, shape in shapes.items():
            self._check_weight(name, shape)
        plain = {name: tuple(shape) for name, shape in shapes.items()}
        return Header(plain, model, provenance, written_by, version, tuple(buffers))

    def _check_weight(self, name: str, shape: list[int]) -> None:
        index, values = self.entries.get(f"{name}.index"), self.entries.get(f"{name}.values")
        if index is None or values is None:
            raise container.corrupt(self.path, f"the positions or the values of '{name}' are missing")
        if (
            index.dtype not in (torch.int32, torch.int64)
            or not values.dtype.is_floating_point
            or len(index.shape) != 1
            or index.shape != values.shape
            or index.numel > math.prod(shape)
        ):
            raise container.corrupt(
                self.path, f"the positions and the values of '{name}' do not fit its shape {shape}"
            )


def _is_increasing(index: npt.NDArray[Any], size: int) -> bool:
    """What ``positions.check`` checks."""
    return bool(index[0] >= 0 and index[-1] < size and (index[1:] > index[:-1]).all())


def _fault(index: Tensor, size: int, name: str) -> str:
    try:
        positions.check(index, size, name=name)
    except InputError as error:
        return str(error).split(":")[0]
    return f"{name} is malformed"


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point():
        return True
    if tensor.dtype == torch.bfloat16 or tensor.device.type != "cpu":
        return bool(torch.isfinite(tensor).all())
    return bool(np.isfinite(tensor.detach().numpy()).all())
