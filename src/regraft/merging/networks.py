"""Networks to merge, as models or as files, seen in one way: named parts that are read slice by slice."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from regraft.errors import InputError, MismatchError
from regraft.files import NetworkFile, PathLike, sha256
from regraft.layers import SPARSE_TYPE
from regraft.weight import SparseWeight

Kind = Literal["weight", "bias", "buffer", "first"]
"""What merging does with a part: the weight rule, the bias rule, the average, or the first network's."""

Source = nn.Module | PathLike

MANY = 200
"""Beyond this number of networks, files are closed after each read: a process may not open them all."""


@dataclass(frozen=True)
class Part:
    """One tensor of a network.

    Attributes:
        shape: the dense shape.
        dtype: type of the values.
        kind: which rule applies.
        stored: number of entries that the network holds, ``shape``'s size where it is dense.
        sparse: whether it is a list of positions and values.
        prunable: whether it can be made sparse.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    kind: Kind
    stored: int
    sparse: bool
    prunable: bool

    @property
    def size(self) -> int:
        """Number of positions."""
        return math.prod(self.shape)


class Described(Protocol):
    """What tells whether two networks share one architecture."""

    @property
    def label(self) -> str:
        """How errors call the network."""
        ...

    @property
    def parts(self) -> Mapping[str, Part]:
        """Its tensors by name."""
        ...

    @property
    def spec(self) -> Mapping[str, Any] | None:
        """What its model is built from, where that is known."""
        ...


@dataclass(frozen=True)
class Signature:
    """A description that outlives its network."""

    label: str
    parts: Mapping[str, Part]
    spec: Mapping[str, Any] | None


class Network(Described, Protocol):
    """What merging needs of a network."""

    def index(self, name: str, start: int, stop: int) -> Tensor:
        """Positions, int64, of the entries ``[start, stop)`` of a sparse part."""
        ...

    def values(self, name: str, start: int, stop: int) -> Tensor:
        """Values of the entries ``[start, stop)`` of a part, which are its positions where it is dense."""
        ...

    def release(self) -> None:
        """Let go of what an open file costs until the next read."""
        ...


def kind_of(name: str, shape: Sequence[int], dtype: torch.dtype, buffer: bool) -> Kind:
    """The kind of a dense tensor: integers come from the first network, buffers are averaged, parameters with
    two or more dimensions follow the weight rule, all others the bias rule.

    >>> kind_of("0.bias", (10,), torch.float32, False), kind_of("1.running_mean", (10,), torch.float32, True)
    ('bias', 'buffer')
    """
    if not dtype.is_floating_point:
        return "first"
    if buffer or name.rpartition(".")[2] in ("running_mean", "running_var"):
        return "buffer"
    return "weight" if len(shape) >= 2 else "bias"


class ModelNetwork:
    """A model in memory; it is never changed."""

    def __init__(self, model: nn.Module, label: str) -> None:
        self.label, self.model = label, model
        spec = getattr(model, "spec", None)
        self.spec: Mapping[str, Any] | None = spec if isinstance(spec, Mapping) else None
        self.parts, self._tensors = self._collect()

    def _collect(self) -> tuple[dict[str, Part], dict[str, tuple[Tensor | None, Tensor]]]:
        sparse = {n: m for n, m in self.model.named_modules() if isinstance(m, SparseWeight)}
        prunable = {
            f"{n}.weight".lstrip(".") for n, m in self.model.named_modules() if type(m) in SPARSE_TYPE
        }
        buffers = {n for n, _ in self.model.named_buffers()}
        owned = {f"{n}.{part}".lstrip("."): n for n in sparse for part in ("index", "values")}
        parts: dict[str, Part] = {}
        tensors: dict[str, tuple[Tensor | None, Tensor]] = {}
        for entry, tensor in self.model.state_dict().items():
            if entry in owned:
                name, w = owned[entry], sparse[owned[entry]]
                parts[name] = Part(tuple(w.shape), w.values.dtype, "weight", w.nnz, True, True)
                tensors[name] = (w.index, w.values.detach())
            elif isinstance(tensor, Tensor):
                if tensor.is_complex():
                    raise InputError(f"'{entry}' of {self.label} is complex; only real networks merge")
                shape, kind = (
                    tuple(tensor.shape),
                    kind_of(entry, tensor.shape, tensor.dtype, entry in buffers),
                )
                parts[entry] = Part(shape, tensor.dtype, kind, tensor.numel(), False, entry in prunable)
                tensors[entry] = (None, tensor.reshape(-1))
        return parts, tensors

    def index(self, name: str, start: int, stop: int) -> Tensor:
        index = self._tensors[name][0]
        assert index is not None
        return index[start:stop].cpu()

    def values(self, name: str, start: int, stop: int) -> Tensor:
        piece = self._tensors[name][1][start:stop].cpu()
        if piece.is_floating_point() and not bool(torch.isfinite(piece).all()):
            raise InputError(
                f"'{name}' of {self.label} holds NaN or infinite values: the network has diverged; train it "
                "with a smaller learning rate, or leave it out"
            )
        return piece

    def release(self) -> None:
        pass


class FileNetwork:
    """A network file, of which only the slices asked for are read."""

    def __init__(self, path: PathLike) -> None:
        self.label, self.path = f"'{os.fspath(path)}'", path
        self._file = NetworkFile(path)
        header = self._file.header
        self.spec: Mapping[str, Any] | None = header.model
        self.provenance = header.provenance
        self.parts: dict[str, Part] = {}
        owned = {f"{n}.{part}": n for n in header.shapes for part in ("index", "values")}
        for entry, place in self._file.entries.items():
            if entry in owned:
                name = owned[entry]
                dtype, nnz = self._file.entries[f"{name}.values"].dtype, self._file.nnz[name]
                self.parts[name] = Part(header.shapes[name], dtype, "weight", nnz, True, True)
            else:
                kind = kind_of(entry, place.shape, place.dtype, entry in header.buffers)
                # a file does not say which module owns a tensor; Linear and Conv call theirs "weight"
                prunable = kind == "weight" and entry.rpartition(".")[2] == "weight"
                self.parts[entry] = Part(place.shape, place.dtype, kind, place.numel, False, prunable)

    def index(self, name: str, start: int, stop: int) -> Tensor:
        return self._file.read_slice(f"{name}.index", start, stop).long()

    def values(self, name: str, start: int, stop: int) -> Tensor:
        return self._file.read_slice(f"{name}.values" if self.parts[name].sparse else name, start, stop)

    def release(self) -> None:
        self._file.close()


def open_network(source: Source, number: int) -> ModelNetwork | FileNetwork:
    """A model or a path as a network; ``number`` (from 1) names models in errors."""
    if isinstance(source, nn.Module):
        return ModelNetwork(source, f"network {number} ({type(source).__name__})")
    if isinstance(source, str | os.PathLike):
        return FileNetwork(source)
    raise InputError(
        f"network {number} is of type {type(source).__name__}, but must be a torch.nn.Module or the path of "
        "a network file"
    )


@contextmanager
def opened(sources: Iterable[Source]) -> Iterator[list[ModelNetwork | FileNetwork]]:
    """All networks, checked to share one architecture; their files are closed in the end.

    Raises:
        InputError: none, a single path or model instead of a list, or something that is neither.
        MismatchError: names, shapes or model specs differ.
        FileError: a file that cannot be read.
    """
    if isinstance(sources, str | os.PathLike | nn.Module):
        raise InputError("merge takes a list of networks: merge([a, b])")
    networks: list[ModelNetwork | FileNetwork] = []
    try:
        for number, source in enumerate(sources, 1):
            networks.append(open_network(source, number))
            check_same(networks[0], networks[-1])
            if number > MANY:
                networks[-1].release()
        if not networks:
            raise InputError("merge got no network: pass at least one model or file")
        yield networks
    finally:
        for network in networks:
            network.release()


def check_same(first: Described, other: Described) -> None:
    """Raise MismatchError unless both have the same parts, of the same shapes and the same kinds."""
    parts = {**other.parts, **first.parts}
    for name in sorted(parts, key=lambda name: parts[name].kind != "weight"):  # weights say most
        if name not in first.parts or name not in other.parts:
            has, lacks = (first, other) if name in first.parts else (other, first)
            raise MismatchError(
                f"{has.label} has '{name}', but {lacks.label} has not: networks to merge must share one "
                "architecture"
            )
        a, b = first.parts[name], other.parts[name]
        if a.shape != b.shape:
            raise MismatchError(
                f"'{name}' has shape {b.shape} in {other.label}, but {a.shape} in {first.label}: networks to "
                "merge must share one architecture"
            )
        if (a.kind == "first") != (b.kind == "first"):
            raise MismatchError(
                f"'{name}' has type {b.dtype} in {other.label}, but {a.dtype} in {first.label}: convert one"
            )
    if first.spec is not None and other.spec is not None:
        for option in sorted({*first.spec, *other.spec} - {"dropout"}):  # dropout holds in training only
            mine, theirs = _plain(first.spec.get(option)), _plain(other.spec.get(option))
            if mine != theirs:
                raise MismatchError(
                    f"{other.label} was built with {option} {theirs!r}, but {first.label} with {mine!r}: "
                    "networks to merge must share one architecture"
                )


def _plain(value: Any) -> Any:
    """``value`` as a file would give it back: JSON knows no tuples."""
    return json.loads(json.dumps(value, default=str))


def data_of(networks: Sequence[Network]) -> dict[str, Any]:
    """For provenance: the data that all networks were trained on, where their files say so and agree."""
    found = [n.provenance.get("data") if isinstance(n, FileNetwork) else None for n in networks]
    return {"data": found[0]} if found[0] is not None and all(d == found[0] for d in found) else {}


def parent_of(network: Network) -> dict[str, Any]:
    """For provenance: where a network came from."""
    if isinstance(network, FileNetwork):
        return {"file": os.fspath(network.path), "sha256": sha256(network.path)}
    return {"model": network.label}


@dataclass(frozen=True)
class Layer:
    """One part of all networks together: ``stored`` has the number of entries of each network."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    kind: Kind
    stored: tuple[int, ...]
    sparse: bool
    prunable: bool

    @property
    def size(self) -> int:
        """Number of positions."""
        return math.prod(self.shape)


def layers_of(networks: Sequence[Network]) -> list[Layer]:
    """The parts of networks that share one architecture. Types and kinds follow the first network; a part is
    sparse where it is sparse in any.
    """
    found = []
    for name, part in networks[0].parts.items():
        same = [network.parts[name] for network in networks]
        stored = tuple(p.stored for p in same)
        found.append(
            Layer(
                name, part.shape, part.dtype, part.kind, stored,
                any(p.sparse for p in same), all(p.prunable for p in same),
            )
        )  # fmt: skip
    return found
