"""The sets that have a name, and ``load``."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from regraft.data import idx, openml
from regraft.data.cifar import CIFAR10_NEEDED, read_cifar10, read_cifar100
from regraft.data.embedded import LOADERS, read_embedded
from regraft.data.folder import read_folder
from regraft.data.mat import SETS, read_mat
from regraft.data.paths import data_dir as resolve_dir
from regraft.data.paths import first_folder
from regraft.data.prepare import Options, prepare
from regraft.data.raw import RawData
from regraft.data.split import Data
from regraft.data.text import NAME as TEXT
from regraft.data.text import is_text, load_text
from regraft.errors import FileError, InputError, unknown

_DIGITS = tuple(str(i) for i in range(10))
_CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_IDX = {
    "mnist": ("MNIST", ("mnist", "MNIST/raw"), _DIGITS, "https://yann.lecun.com/exdb/mnist"),
    "fashion-mnist": (
        "Fashion-MNIST", ("fashion-mnist", "FashionMNIST/raw"), _CLOTHES,
        "https://github.com/zalandoresearch/fashion-mnist",
    ),
}  # fmt: skip
_MAT = {spec.name: spec for spec in SETS}
_CIFAR100 = {
    "cifar-100": ("cifar-100-python", "cifar-100/cifar-100-python"),
    "cifar100-subset": ("cifar100-subset/cifar-100-python",),
}
_CIFAR10_FOLDERS = ("cifar-10-batches-py", "cifar-10/cifar-10-batches-py")

SOURCES: dict[str, openml.Source] = {
    "mnist": openml.Source(
        554, (28, 28), (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009), 70_000, openml.as_idx
    ),
    "fashion-mnist": openml.Source(40996, (28, 28), (1000,) * 10, 70_000, openml.as_idx),
    "cifar-10": openml.Source(40927, (3, 32, 32), (1000,) * 10, 60_000, openml.as_cifar10(_CIFAR10)),
}


def names() -> list[str]:
    """The names that ``load`` knows, sorted.

    >>> "digits" in names(), "fashion-mnist" in names()
    (True, True)
    """
    return sorted([*LOADERS, *_IDX, *_MAT, *_CIFAR100, "cifar-10", TEXT])


def load(
    name: str | os.PathLike[str] = "digits",
    *,
    data_dir: str | os.PathLike[str] | None = None,
    classes: Sequence[int | str] | None = None,
    per_class: int | None = None,
    test_per_class: int | None = None,
    test_fraction: float | None = None,
    validation: float = 0.0,
    seed: int = 0,
    download: bool = False,
    standardise: bool | str = True,
    flatten: bool = False,
    coarse: bool = False,
    image_size: int | Sequence[int] | None = None,
    device: torch.device | str | None = None,
) -> Data:
    """A set by name, or a folder of images or a text by path, ready for training.

    Samples x classes: digits 1797 x 10, breast-cancer 569 x 2, iris 150 x 3, wine 178 x 3 (always there);
    mnist and fashion-mnist 60000 + 10000 x 10, cifar-10 50000 + 10000 x 10, cifar-100 50000 + 10000 x 100
    (official test sets); orl 400 x 40 (faces of 32 x 32), lung 203 x 5, glioma 50 x 4, prostate-ge 102 x 2.
    Case, "-" and "_" in names do not matter. Images are [channels, height, width], rows of tables [features].

    ``"text"`` is a text that regraft writes itself from ``seed``, and the path of a file in UTF-8 is a text
    too. A sample is a row of characters as numbers, and its labels are the characters that come next, one for
    each. Behind a colon: ``context=64`` characters a sample, ``characters=400000`` in all, ``part=1/2`` for
    the first half of the training text, as in ``"text:context=32,part=1/2"``. The last tenth of a text is for
    testing. ``gpt`` is the model for it.

    The same arguments give the same data, in the files' order, whatever was loaded before.

    Args:
        name: one of ``names()``, the path of a folder with one subfolder of images per class, with or
            without ``train`` and ``test`` folders above them, or the path of a text.
        data_dir: where the sets' folders are; default the variable REGRAFT_DATA, else ``~/.cache/regraft``.
        classes: keep these classes alone, by label or by name; they become 0, 1, ... in this order.
        per_class: training samples of each class, chosen by the seed; default all.
        test_per_class: test samples of each class, likewise.
        test_fraction: share of test samples, in (0, 1), for sets without a test set of their own, stratified
            by class: ceil(test_fraction * n) samples. Default 0.25 for scikit-learn's sets and folders, 1/3
            for .mat sets.
        validation: share of the training samples to take off as ``Data.validation``, stratified; 0 for none.
        seed: of every choice.
        download: fetch mnist, fashion-mnist or cifar-10 from OpenML into ``data_dir`` where they are missing.
        standardise: True: mean 0 and standard deviation 1 per channel of images, per feature of tables, by
            the statistics of the final training samples alone ("channel" and "feature" say which); "pixel"
            divides pixels by their largest value, into [0, 1]; False leaves the files' values.
        flatten: samples as vectors.
        coarse: the 20 superclasses of CIFAR-100 instead of its 100 classes.
        image_size: height and width, or one number for both, to resize a folder's images to.
        device: where the tensors go; default the CPU.

    >>> data = load("digits", classes=[0, 1], per_class=50, test_per_class=20)
    >>> data.input_shape, data.classes, data.train.counts(), data.test.counts()
    ((1, 8, 8), 2, [50, 50], [20, 20])

    Raises:
        InputError: an unknown name (with the nearest ones) or an option that cannot be used.
        FileError: files missing (with where they were looked for and how to get them), corrupt or malicious.
        MissingDependency: a folder of images without Pillow.
    """
    options = Options(
        classes, per_class, test_per_class, test_fraction, validation, seed, standardise, flatten, device
    )
    options.check()
    known = canonical(name)
    if (known == TEXT or known is None) and is_text(name):
        if coarse or image_size is not None:
            raise InputError("coarse and image_size are for images, not for a text: leave them out")
        return load_text(name, options)
    if coarse and known not in _CIFAR100:
        raise InputError(f"coarse=True is for cifar-100 alone, not for '{name}': leave it out")
    if known is None:
        return prepare(read_folder(_folder(name), image_size), options)
    if image_size is not None:
        raise InputError(f"image_size is for folders of images alone, not for {known!r}: leave it out")
    return prepare(_read(known, resolve_dir(data_dir), download, coarse), options)


def canonical(name: str | os.PathLike[str]) -> str | None:
    """The name in ``names()`` that ``name`` means, however it is spelt; None if it means none.

    >>> canonical("Prostate_GE"), canonical("cifar10"), canonical("pictures/")
    ('prostate-ge', 'cifar-10', None)
    """
    return {_plain(n): n for n in names()}.get(_plain(str(name)))


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower())


def _folder(name: str | os.PathLike[str]) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if len(path.parts) > 1 or isinstance(name, os.PathLike):
        raise FileError(
            f"there is no folder or file '{name}': expected one subfolder of images per class, or a text"
        )
    raise unknown("data set", str(name), names())


def _read(name: str, root: Path, download: bool, coarse: bool) -> RawData:
    if name in LOADERS:
        return read_embedded(name)
    if name in _MAT:
        return read_mat(_MAT[name], root)
    if name in _CIFAR100:
        return read_cifar100(name, [root / f for f in _CIFAR100[name]], coarse)
    title, places, class_names, home = _IDX.get(name, ("CIFAR-10", _CIFAR10_FOLDERS, _CIFAR10, ""))
    folders = [root / p for p in places]
    # only what is missing is fetched: a corrupt file stays, and reading it names it
    if download and first_folder(folders, idx.NEEDED if name in _IDX else CIFAR10_NEEDED) is None:
        openml.fetch(name, SOURCES[name], folders[0])
    if name in _IDX:
        return idx.read(name, title, folders, class_names, home, downloadable=True)
    return read_cifar10(name, folders, downloadable=True)
