"""Image folders: one subfolder per class, with or without ``train`` and ``test`` above them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from regraft.data.paths import FACTOR, reading
from regraft.data.raw import Array, RawData, RawSplit
from regraft.errors import FileError, InputError, MissingDependency

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
)
FREE_PIXELS = 2**22
_GREY = frozenset({"1", "L", "LA", "I;16", "I;16L", "I;16B", "I;16N"})
_COLOUR = frozenset({"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})


def read_folder(root: Path, image_size: int | Sequence[int] | None = None) -> RawData:
    """Images under ``root/<class>/``, or under ``root/train/<class>/`` and ``root/test/<class>/``
    (``val`` where there is no ``test``); any depth below the class. Classes are the folders' names, sorted.

    All images grey: one channel; else three (RGB, transparency left out). Animations give their first image.

    Args:
        root: the folder.
        image_size: resize to this (height, width), or to a square; None expects equal sizes.

    Raises:
        MissingDependency: Pillow is not installed.
        InputError: ``image_size`` is not one or two positive whole numbers.
        FileError: no class folders, a class without images, images of different sizes or that cannot be read.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise MissingDependency("pillow", "images", "reading image folders") from error
    size = _size(image_size)
    train_root = root / "train" if (root / "train").is_dir() else root
    test_root = next((root / n for n in ("test", "val") if train_root != root and (root / n).is_dir()), None)
    names = _class_names(train_root)
    train_files = _files(train_root, names)
    test_files = [] if test_root is None else _test_files(test_root, names, train_root)
    if size is None:
        size, channels = _common_size([path for path, _ in train_files + test_files])
    else:
        channels = _channels([path for path, _ in train_files + test_files])
    train = _decode(train_files, size, channels, image_size is not None, str(train_root))
    test = None
    if test_root is not None:
        test = _decode(test_files, size, channels, image_size is not None, str(test_root))
    return RawData(root.name, train, test, tuple(names), images=True, top=255.0, test_fraction=0.25)


def _size(image_size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if image_size is None:
        return None
    pair = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(pair) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in pair):
        raise InputError(
            f"image_size is {image_size!r}: expected a whole number or (height, width), 1 or more"
        )
    return pair[0], pair[1]


def _class_names(root: Path) -> list[str]:
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(names) < 2:
        raise FileError(
            f"'{root}' has {len(names)} subfolders: an image folder has one subfolder per class, at least two"
        )
    return names


def _files(root: Path, names: list[str], *, all_classes: bool = True) -> list[tuple[Path, int]]:
    found = []
    for label, name in enumerate(names):
        paths = sorted(
            p for p in (root / name).rglob("*")
            if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith(".")
        )  # fmt: skip
        if all_classes and not paths:
            kinds = ", ".join(sorted(SUFFIXES))
            raise FileError(
                f"the class folder '{root / name}' has no images: expected files ending in {kinds}"
            )
        found += [(path, label) for path in paths]
    return found


def _test_files(root: Path, names: list[str], train_root: Path) -> list[tuple[Path, int]]:
    strangers = sorted(
        {p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")} - set(names)
    )
    if strangers:
        raise FileError(
            f"'{root / strangers[0]}' is a class that '{train_root}' does not have: both need the same"
        )
    found = _files(root, names, all_classes=False)
    if not found:
        raise FileError(f"'{root}' has no images: expected the class folders of '{train_root}'")
    return found


def _common_size(paths: list[Path]) -> tuple[tuple[int, int], int]:
    """(height, width) and channels from the headers alone."""
    first: tuple[int, int] | None = None
    for path in paths:
        size, _ = _header(path)
        if first is None:
            first = size
        elif size != first:
            raise FileError(
                f"'{path}' is {size[0]} x {size[1]} pixels, but '{paths[0]}' is {first[0]} x {first[1]}: "
                "pass image_size to bring all images to one size"
            )
    assert first is not None
    return first, _channels(paths)


def _channels(paths: list[Path]) -> int:
    return 1 if all(_header(path)[1] in _GREY for path in paths) else 3


def _header(path: Path) -> tuple[tuple[int, int], str]:
    with _opened(path, whole=False) as image:
        mode = image.mode
        if mode not in _GREY and mode not in _COLOUR:
            raise FileError(f"'{path}' has pixels of mode {mode!r}: expected 8- or 16-bit grey, or colour")
        return (image.height, image.width), mode


@contextmanager
def _opened(path: Path, *, whole: bool) -> Iterator[Any]:
    """An image, not decoded yet, that does not promise more pixels than its bytes can hold.

    With ``whole`` it comes from memory, to be decoded: nothing can be read there that a length only claims.
    """
    from PIL import Image

    with reading(path, "an image"), path.open("rb") as file:
        length = os.fstat(file.fileno()).st_size
        _check_pixels(path, length, *_webp_size(file.read(30)))  # its decoder makes room when it is opened
        file.seek(0)
        with Image.open(io.BytesIO(file.read()) if whole else file) as image:
            _check_pixels(path, length, image.height, image.width)
            yield image


def _check_pixels(path: Path, length: int, height: int, width: int) -> None:
    """A few bytes may promise any number of pixels."""
    if height * width > FREE_PIXELS + FACTOR * length:
        raise FileError(
            f"'{path}' is {height} x {width} pixels in {length:,} bytes, "
            "which no picture is: it is damaged, or made to fill the memory"
        )


def _webp_size(head: bytes) -> tuple[int, int]:
    """Height and width in the first 30 bytes of a WebP file (RFC 9649, section 2); (0, 0) of another."""
    if len(head) < 30 or head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return 0, 0
    kind = head[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    return height, width


def _decode(
    files: list[tuple[Path, int]], size: tuple[int, int], channels: int, resize: bool, source: str
) -> RawSplit:
    out = np.empty((len(files), channels, *size), dtype=np.uint8)
    for i, (path, _) in enumerate(files):
        out[i] = _pixels(path, size if resize else None, channels)
    return RawSplit(out, np.array([label for _, label in files], dtype=np.int64), source)


def _pixels(path: Path, size: tuple[int, int] | None, channels: int) -> Array:
    from PIL import Image

    with _opened(path, whole=True) as image:
        if image.mode.startswith("I;16"):
            # convert("L") would clip 16 bits to 255 instead of scaling them
            image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
        image = image.convert("L" if channels == 1 else "RGB")
        if size is not None and image.size != (size[1], size[0]):
            image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
