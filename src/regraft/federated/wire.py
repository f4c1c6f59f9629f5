"""Updates as bytes: versioned, checksummed, and read without trust.

A message names no tensors: sender and receiver share the architecture, whose fingerprint it carries. Layout,
little-endian: ``rgfu``, version, type of the values, flags, round, examples, fingerprint of the architecture,
fingerprint of the base if there is one, the client's name; of each sparse weight positions and values; the
dense tensors; statistics; 8 bytes of BLAKE2b over everything before.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from regraft import positions
from regraft.container import tensor_bytes
from regraft.errors import InputError, unknown
from regraft.federated import subsets
from regraft.federated.trust import Rejected, check_positions
from regraft.federated.update import Entries, Plan, Update
from regraft.topology import Topology

VERSION = 1
"""The format that this version writes, and the only one it reads."""

TYPES: dict[str, torch.dtype] = {
    "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16,
}  # fmt: skip
"""Types that values can be sent in, by name."""

_MAGIC = b"rgfu"
_START = struct.Struct("<4sBBBIQ8s")
_CHECK = 8
_BASE, _STATISTICS = 1, 2
_WHOLE, _CHANGES = 0, 1


def encode(update: Update, plan: Plan, dtype: str = "float32", base: Topology | None = None) -> bytes:
    """The update as bytes.

    Args:
        plan: the architecture, ``Plan.of(model)``.
        dtype: type of the values and the dense floating point tensors on the way: ``"float32"``,
            ``"float16"`` or ``"bfloat16"``.
        base: a topology that the receiver has too; weights whose changes against it take fewer bytes than
            their positions are sent as changes.

    >>> from regraft import sparsify
    >>> model = sparsify(nn.Sequential(nn.Linear(100, 50)), density=0.05)
    >>> update = Update.of(model, round=0, client="a", examples=10)
    >>> plan = Plan.of(model)
    >>> whole, half = (len(encode(update, plan, dtype)) for dtype in ("float32", "float16"))
    >>> whole - half == 2 * 250 + 2 * 50
    True
    >>> len(encode(update, plan, base=Topology.of(model))) < whole - 100  # positions are not sent again
    True

    Raises:
        InputError: an unknown type, or values that it cannot hold.
        MismatchError: the update is of another architecture.
    """
    check_type(dtype)
    plan.check(update)
    flags = (_BASE if base is not None else 0) | (_STATISTICS if update.statistics else 0)
    code = list(TYPES).index(dtype)
    name = update.client.encode()
    parts = [
        _START.pack(_MAGIC, VERSION, code, flags, update.round, update.examples, plan.fingerprint),
        b"" if base is None else fingerprint(base),
        struct.pack("<H", len(name)), name,
    ]  # fmt: skip
    for weight, place in plan.sparse.items():
        entries = update.layers[weight]
        parts.append(_positions(entries.index, place.size, None if base is None else base[weight].index))
        parts.append(_values(entries.values, TYPES[dtype], weight))
    for tensor_name, tensor in ((n, update.dense[n]) for n in plan.dense):
        floating = tensor.is_floating_point()
        parts.append(_values(tensor, TYPES[dtype], tensor_name) if floating else bytes(tensor_bytes(tensor)))
    parts.append(_statistics(update.statistics) if update.statistics else b"")
    body = b"".join(parts)
    return body + hashlib.blake2b(body, digest_size=_CHECK).digest()


def check_type(dtype: str) -> None:
    """Raise InputError unless values can be sent in this type."""
    if dtype not in TYPES:
        raise unknown("type of values", dtype, TYPES)


def fingerprint(topology: Topology) -> bytes:
    """8 bytes that two topologies share only if they are the same."""
    digest = hashlib.blake2b(digest_size=8)
    for name, connections in topology.items():
        digest.update(name.encode() + struct.pack("<Q", connections.nnz))
        digest.update(tensor_bytes(connections.index))
    return digest.digest()


def _positions(index: Tensor, size: int, base: Tensor | None) -> bytes:
    packed = subsets.pack(index, size)
    whole = struct.pack("<BQI", _WHOLE, index.numel(), len(packed)) + packed
    if base is None:
        return whole
    gone = positions.contains(index, base).logical_not_().nonzero().squeeze(1)  # ranks among the base's
    new = positions.difference(index, base)
    ranks = new - torch.searchsorted(base, new)  # ranks among the positions that the base lacks
    lists = [(gone, subsets.pack(gone, base.numel())), (ranks, subsets.pack(ranks, size - base.numel()))]
    changes = struct.pack("<B", _CHANGES) + b"".join(
        struct.pack("<QI", ranks.numel(), len(packed)) + packed for ranks, packed in lists
    )
    return min(whole, changes, key=len)


def _values(tensor: Tensor, dtype: torch.dtype, name: str) -> bytes:
    sent = tensor.to(dtype)
    if bool((torch.isinf(sent) & torch.isfinite(tensor)).any()):
        raise InputError(
            f"'{name}' holds {float(tensor.abs().max()):g}, which {dtype} cannot hold: send float32 or "
            "bfloat16"
        )
    return bytes(tensor_bytes(sent))


def _statistics(statistics: Mapping[str, Tensor]) -> bytes:
    parts = [struct.pack("<H", len(statistics))]
    for name, numbers in statistics.items():
        parts.append(struct.pack("<HI", len(name.encode()), numbers.numel()) + name.encode())
        parts.append(bytes(tensor_bytes(numbers.float().flatten())))
    return b"".join(parts)


class _Reader:
    """Bytes from front to back; asking for more than there are is an error."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = memoryview(data), 0

    def take(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise Rejected("corrupt", "the message ends before its last tensor")
        self._at += count
        return bytes(self._data[self._at - count : self._at])

    def unpack(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def tensor(self, dtype: torch.dtype, count: int) -> Tensor:
        raw = self.take(dtype.itemsize * count)
        return torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.empty(0, dtype=dtype)

    def text(self, count: int) -> str:
        return self.take(count).decode(errors="replace")

    def end(self) -> None:
        if self._at != len(self._data):
            raise Rejected("corrupt", "bytes follow the last tensor of the message")


def decode(data: bytes, like: nn.Module | Plan, base: Topology | None = None) -> Update:
    """The update that ``encode`` wrote, its values in the architecture's own types.

    Memory is at most 64 times the message's length, whatever it says.

    Args:
        like: a model of the architecture, or its plan.
        base: the topology that changes are counted from.

    Raises:
        Rejected: the message is corrupt, of another version, of another architecture, or counts from a base
            that is not ``base``. Values are not looked at: see ``Trust``.
    """
    plan = like if isinstance(like, Plan) else Plan.of(like)
    body, check = data[:-_CHECK], data[-_CHECK:]
    reader = _Reader(body)
    magic, version, code, flags, round, examples, architecture = _START.unpack(reader.take(_START.size))
    if magic != _MAGIC:
        raise Rejected("corrupt", "the message is no update of a sparse network")
    if version != VERSION:
        raise Rejected(
            "version",
            f"the message has format {version}, but this regraft reads {VERSION}: use the same version",
        )
    if hashlib.blake2b(body, digest_size=_CHECK).digest() != check:
        raise Rejected("corrupt", "the message was changed or cut on its way: its checksum is wrong")
    if code >= len(TYPES) or flags & ~(_BASE | _STATISTICS):
        raise Rejected("corrupt", "the message has an unknown type of values or unknown flags")
    if architecture != plan.fingerprint:
        raise Rejected("architecture", "the update is of another architecture than the model here")
    base = _base(reader, base) if flags & _BASE else None
    client = reader.text(*reader.unpack("<H"))
    dtype = list(TYPES.values())[code]
    layers = {}
    for name, place in plan.sparse.items():
        index = _read_positions(reader, place.size, None if base is None else base[name].index, name)
        layers[name] = Entries(index, reader.tensor(dtype, index.numel()).to(place.dtype))
    dense = {}
    for name, place in plan.dense.items():
        sent = dtype if place.dtype.is_floating_point else place.dtype
        dense[name] = reader.tensor(sent, place.size).to(place.dtype).view(place.shape)
    statistics = _read_statistics(reader) if flags & _STATISTICS else {}
    reader.end()
    return Update(round, client, examples, layers, dense, statistics)


def _base(reader: _Reader, base: Topology | None) -> Topology:
    if base is None or reader.take(8) != fingerprint(base):
        raise Rejected("base", "the update counts its changes from a topology that is not the one here")
    return base


def _read_positions(reader: _Reader, size: int, base: Tensor | None, name: str) -> Tensor:
    (how,) = reader.unpack("<B")
    if how not in (_WHOLE, _CHANGES) or (how == _CHANGES and base is None):
        raise Rejected("corrupt", f"the positions of '{name}' are in an unknown code")
    try:
        if base is None or how == _WHOLE:
            index = _read_subset(reader, size)
        else:
            gone = _read_subset(reader, base.numel())
            ranks = _read_subset(reader, size - base.numel())
            stay = torch.ones(base.numel(), dtype=torch.bool)
            stay[gone] = False
            index = torch.cat([base[stay], positions.nth_absent(base, ranks)]).sort().values
    except InputError as error:
        raise Rejected("corrupt", f"'{name}': {error}") from None
    check_positions(index, size, name)
    return index


def _read_subset(reader: _Reader, size: int) -> Tensor:
    count, length = reader.unpack("<QI")
    return subsets.unpack(reader.take(length), size, count)


def _read_statistics(reader: _Reader) -> dict[str, Tensor]:
    found = {}
    (groups,) = reader.unpack("<H")
    for _ in range(groups):
        length, units = reader.unpack("<HI")
        name = reader.text(length)
        found[name] = reader.tensor(torch.float32, units)
    return found
