"""Data sets on disk: idx, MATLAB, CIFAR's pickles, folders of images."""

from __future__ import annotations

import functools
import gzip
import importlib.util
import io
import pickle
import pickletools
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from regraft.data import mat
from regraft.data.cifar import read_cifar100
from regraft.data.folder import read_folder
from regraft.data.idx import idx_bytes, read_idx
from regraft.data.matlab import read_matrices
from regraft.data.openml import as_cifar10
from regraft.data.unpickle import read_pickle

from . import mutate
from .target import Target, require


@functools.cache
def _idx_files() -> tuple[bytes, ...]:
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((5, 4, 3), (20,), (0,), (1, 28, 28))]
    packed = [idx_bytes(a) for a in arrays]
    return (*packed, *(gzip.decompress(p) for p in packed))


def _idx(rng: random.Random) -> tuple[bytes, int]:
    seed = rng.choice(_idx_files())
    ndim = rng.choice((1, 3))
    way = rng.random()
    if way < 0.03:
        return seed, ndim
    if way < 0.3:
        return mutate.changed(rng, seed, _idx_files()), ndim
    body = bytearray(gzip.decompress(seed) if seed[:2] == b"\x1f\x8b" else seed)
    if rng.random() < 0.7:
        at = 4 * rng.randrange(0, 5)
        body[at : at + 4] = struct.pack(">I", rng.choice(mutate.NUMBERS) % 2**32)
    else:
        body = bytearray(mutate.changed(rng, bytes(body)))
    if rng.random() < 0.002:  # much more than it says, or as much as it says, of nothing
        size = rng.choice((10**6, 10**8))
        body = bytearray(struct.pack(">II", 0x0801, rng.choice((size, 10, 2**32 - 1))) + bytes(size))
        return gzip.compress(bytes(body), 1), ndim
    if rng.random() < 0.5:
        made = gzip.compress(bytes(body), 1, mtime=0)
        return (made * rng.choice((1, 1, 1, 2)))[: rng.choice((None, None, -1, -9))], ndim
    return bytes(body), ndim


def _read_idx(case: tuple[bytes, int], folder: Path) -> None:
    data, ndim = case
    path = folder / "x"
    path.write_bytes(data)
    array = read_idx(path, ndim)
    require(array.ndim == ndim and array.dtype == np.uint8, "another array than was asked for")
    if array.nbytes > 2**22:
        return  # what is packed is small: the memory would be that of looking at it here
    path.write_bytes(idx_bytes(array))
    require(np.array_equal(read_idx(path, ndim), array), "the bytes changed")


def _element(kind: int, body: bytes) -> bytes:
    return struct.pack("<II", kind, len(body)) + body + b"\0" * (-len(body) % 8)


def _matrix(name: str, array: np.ndarray[Any, Any], code: int, stored: int, packed: bool) -> bytes:
    parts = (
        _element(6, struct.pack("<II", code, 0)), _element(5, struct.pack(f"<{array.ndim}i", *array.shape)),
        _element(1, name.encode()), _element(stored, array.tobytes("F")),
    )  # fmt: skip
    body = b"".join(parts)
    if not packed:
        return _element(14, body)
    body = zlib.compress(_element(14, body))
    return struct.pack("<II", 15, len(body)) + body


MAT_START = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<HH", 0x0100, 0x4D49)


@functools.cache
def _mat_files() -> tuple[bytes, ...]:
    x = np.arange(16.0).reshape(8, 2)
    y = np.repeat(np.arange(1, 5, dtype=np.uint8), 2)[:, None]
    return tuple(
        MAT_START + _matrix("X", x, 6, 9, packed) + _matrix("Y", y, 9, 2, packed) for packed in (False, True)
    )


def _mat(rng: random.Random) -> bytes:
    seed = rng.choice(_mat_files())
    way = rng.random()
    if way < 0.03:
        return seed
    if way < 0.6:
        return (
            MAT_START + mutate.changed(rng, seed[128:], _mat_files())
            if way < 0.5
            else mutate.changed(rng, seed)
        )
    inside = b"".join((
        _element(6, struct.pack("<II", rng.choice((6, 9, 1, 5, 255, 0x806)), 0)),
        _element(5, struct.pack("<2i", *(rng.choice((0, 1, 2, 4, 2**31 - 1, -1)) for _ in range(2)))),
        _element(1, rng.choice((b"X", b"Y", b"Z", b"", b"X" * 300))),
        _element(rng.choice((9, 2, 7, 1, 99)), rng.randbytes(rng.choice((0, 1, 8, 16, 32)))),
    ))  # fmt: skip
    if rng.random() < 0.5:
        inside = mutate.changed(rng, inside, most=2)
    body = _element(14, inside)
    for _ in range(rng.choice((0, 1, 1, 2))):  # compressed, in another compressed one
        if rng.random() < 0.01:
            body += bytes(rng.choice((10**5, 10**6, 10**6, 10**8)))
        body = zlib.compress(body, 1)
        body = struct.pack("<II", 15, len(body)) + body
    return MAT_START + body * rng.choice((1, 1, 2))


def _read_mat(data: bytes, folder: Path) -> None:
    path = folder / "GLIOMA.mat"
    path.write_bytes(data)
    for array in read_matrices(path, ("X", "Y")).values():
        require(array.dtype.kind in "iuf" and array.nbytes <= 8 * 1100 * len(data), "more numbers than bytes")
    found = mat.read_mat(next(s for s in mat.SETS if s.name == "glioma"), folder)
    found.train.check(4)


@functools.cache
def _pickles() -> tuple[bytes, ...]:
    x = np.random.default_rng(0).integers(0, 256, (1, 3072), dtype=np.uint8)
    held: Any = {"data": x, "fine_labels": [3], "coarse_labels": [0], "filenames": ["a"]}
    meta: Any = {"fine_label_names": list("abcdef"), "coarse_label_names": ["even", "odd"]}
    made = as_cifar10(("a", "b"))(np.zeros((6, 3, 32, 32), np.uint8), np.zeros(6, np.int64), 5)
    return (
        *(pickle.dumps(value, protocol=p) for value in (held, meta) for p in (0, 2, 4, 5)),
        made["test_batch"],
        made["batches.meta"],
    )  # fmt: skip


OPS = (
    b"cos\nsystem\n", b"cbuiltins\neval\n", b"c__builtin__\nbytes\n", b"cnumpy\nndarray\n",
    b"cnumpy\ndtype\n",
    b"c_codecs\nencode\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"R", b"b", b"o", b"\x81", b"\x92",
    b"(", b")",
    b"}", b"]", b"t", b"\x85", b"\x86", b"\x87", b"d", b"l", b"s", b"u", b"a", b"e", b"0", b"1", b"2", b".",
    b"N",
    b"\x88", b"q\x01", b"h\x01", b"r\xff\xff\xff\xff", b"j\x01\0\0\0", b"\x94", b"K\x01",
    b"J\xff\xff\xff\xff",
    b"\x8a\x08" + b"\xff" * 8, b"\x8b\xff\xff\xff\x7f", b"I" + b"9" * 5000 + b"\n",
    b"L" + b"9" * 5000 + b"L\n",
    b"X\xff\xff\xff\xff", b"B\xff\xff\xff\x7f", b"\x96" + (2**40).to_bytes(8, "little"), b"F1e999\n",
    b"\x97", b"\x98",
    b"\x8e" + (2**62).to_bytes(8, "little"), b"\x95" + (2**62).to_bytes(8, "little"), b"Pid\n", b"Q",
    b"\x82\x01",
    b"\x84\x01\0\0\0", b"i__main__\nx\n", b"\x8c\x02os\x8c\x06system\x93", b"(lp0\n", b"g0\n", b"\x8f",
    b"\x90", b"\x91",
    b"U\x01a", b"\x8c\x01b", b"S'x'\n", b"Vx\n", b"K\x01\x85" + b"2\x86" * 40, b"]" + b"2\x86" * 40,
    b"]q\x01h\x01a",
)  # fmt: skip
"""Opcodes of the pickle machine, with arguments that ask for much or for what is not there."""


@functools.cache
def _cut(seed: bytes) -> tuple[bytes, ...]:
    starts = [at for _, _, at in pickletools.genops(seed)]
    return tuple(seed[a:b] for a, b in zip(starts, [*starts[1:], len(seed)], strict=True))


def _pickle(rng: random.Random) -> bytes:
    seed = rng.choice(_pickles())
    way = rng.random()
    if way < 0.03:
        return seed
    if way < 0.3:
        return mutate.changed(rng, seed, _pickles())
    ops = list(_cut(seed))
    for _ in range(rng.randint(1, 4)):
        at, kind = rng.randrange(len(ops)), rng.randrange(5)
        if kind == 0:
            del ops[at : at + rng.randint(1, 3)]
        elif kind == 1:
            ops[at] = rng.choice(OPS)
        elif kind == 2:
            ops.insert(at, rng.choice(OPS))
        elif kind == 3:
            ops[at:at] = ops[rng.randrange(len(ops)) :][: rng.randint(1, 4)]
        else:
            ops[at] = mutate.changed(rng, ops[at] or b"N", most=1)
        ops = ops or [b"."]
    return b"".join(ops)


def _read_pickle(data: bytes, folder: Path) -> None:
    path = folder / "train"
    path.write_bytes(data)
    found = read_pickle(path)
    plain = (str, bytes, bytearray, int, float, bool, list, tuple, dict, type(None), np.ndarray)
    require(
        all(isinstance(k, str) and isinstance(v, plain) for k, v in found.items()), "it made an odd object"
    )


def _read_cifar(data: bytes, folder: Path) -> None:
    for name, good in (("train", _pickles()[1]), ("test", _pickles()[1]), ("meta", _pickles()[5])):
        (folder / name).write_bytes(good)
    (folder / ("meta" if len(data) < 1000 else "train")).write_bytes(data)
    made = read_cifar100("cifar100", [folder], coarse=False)
    made.train.check(len(made.class_names))
    require(made.train.x.shape[1:] == (3, 32, 32), "other images")


FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "WEBP")


@functools.cache
def _images() -> tuple[tuple[str, bytes], ...]:
    from PIL import Image

    rng = np.random.default_rng(0)
    found = []
    for kind in FORMATS:
        for shape in ((6, 5), (6, 5, 3)):
            held = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(held, kind)
            found.append((kind.lower(), held.getvalue()))
    return tuple(found)


def _right_sums(data: bytes) -> bytes:
    """A PNG whose checksums are right again."""
    made, at = data[:8], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + length > len(data):
            break
        chunk = data[at + 4 : at + 8 + length]
        made += data[at : at + 4] + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        at += 12 + length
    return made + data[at:]


def _image(rng: random.Random) -> tuple[str, bytes, bool]:
    kind, seed = rng.choice(_images())
    if rng.random() < 0.03:
        return kind, seed, False
    if kind == "png" and rng.random() < 0.4:
        made = bytearray(seed)
        at = rng.choice((16, 20))
        made[at : at + 4] = struct.pack(">I", rng.choice((0, 1, 9, 3000, 9000, 20000, 2**31 - 1)))
        return kind, _right_sums(bytes(made)), rng.random() < 0.5
    made2 = mutate.changed(rng, seed, [data for name, data in _images() if name == kind])
    return kind, _right_sums(made2) if kind == "png" and rng.random() < 0.7 else made2, rng.random() < 0.5


def _read_images(case: tuple[str, bytes, bool], folder: Path) -> None:
    kind, data, resize = case
    root = folder / "images"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True, exist_ok=True)
        for old in (root / name).iterdir():
            old.unlink()
    good = next(d for k, d in _images() if k == kind)
    (root / "a" / f"1.{kind}").write_bytes(good)
    (root / "b" / f"1.{kind}").write_bytes(data)
    made = read_folder(root, 4 if resize else None)
    require(made.train.x.shape[0] == 2 and made.train.x.dtype == np.uint8, "other images")


GROUP = "data files"
TARGETS: tuple[Target, ...] = (
    Target("idx", GROUP, 45_000, _idx, _read_idx),
    Target("matlab", GROUP, 45_000, _mat, _read_mat),
    Target("pickle", GROUP, 40_000, _pickle, _read_pickle),
    Target("cifar", GROUP, 10_000, _pickle, _read_cifar),
)
if importlib.util.find_spec("PIL") is not None:
    TARGETS += (Target("images", GROUP, 15_000, _image, _read_images),)
