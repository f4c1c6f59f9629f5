"""The .mat sets of thesis 3: gene expression (LUNG, GLIOMA, Prostate_GE) and faces (ORL).

They come from the scikit-feature repository (Li et al. 2017, arXiv:1601.07996): ``X`` [n, features] and
``Y`` [n, 1], labels from 1, rows sorted by class, no official test set.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regraft.data.matlab import read_matrices
from regraft.data.paths import missing
from regraft.data.raw import RawData, RawSplit, whole_numbers
from regraft.errors import FileError

HOME = "https://jundongl.github.io/scikit-feature/datasets.html"


@dataclass(frozen=True)
class MatSet:
    """What is known of one set: its file names, its classes, the shape of its images if it has any."""

    name: str
    title: str
    files: tuple[str, ...]
    class_names: tuple[str, ...]
    image: tuple[int, int] | None = None


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"class {i + 1}" for i in range(count))


SETS = (
    MatSet("orl", "ORL", ("ORL/ORL.mat",), tuple(f"person {i + 1}" for i in range(40)), (32, 32)),
    MatSet("lung", "LUNG", ("LUNG/LUNG.mat", "lung/lung.mat"), _numbered(5)),
    MatSet("glioma", "GLIOMA", ("GLIOMA/GLIOMA.mat",), _numbered(4)),
    MatSet(
        "prostate-ge",
        "Prostate_GE",
        ("Prostate_GE/Prostate_GE.mat", "Prostate_GE/Prostate-GE.mat"),
        _numbered(2),
    ),
)


def read_mat(spec: MatSet, root: Path) -> RawData:
    """One of ``SETS`` from ``root``; the number of samples and features is what the file has.

    Raises:
        FileError: missing, corrupt, without ``X`` and ``Y``, labels out of 1 to the number of classes.
    """
    paths = [root / f for f in (*spec.files, *dict.fromkeys(Path(f).name for f in spec.files))]
    path = next((p for p in paths if p.is_file()), None)
    if path is None:
        folders = [path.parent for path in paths]
        raise missing(spec.title, folders, paths[0].name, HOME, downloadable=False)
    held = read_matrices(path, ("X", "Y"))
    for key in ("X", "Y"):
        if key not in held:
            raise FileError(f"'{path}' has no matrix {key!r}: expected X (samples x features) and Y (labels)")
    x, y = held["X"], whole_numbers(held["Y"], str(path))
    if x.ndim != 2 or x.dtype.kind not in "biuf":
        raise FileError(
            f"X in '{path}' is {x.dtype} of shape {x.shape}: expected numbers, samples x features"
        )
    count = len(spec.class_names)
    if y.size and (y.min() < 1 or y.max() > count):
        wrong = int(y.min() if y.min() < 1 else y.max())
        raise FileError(f"'{path}' has the label {wrong}, but {spec.title}'s labels are 1 to {count}")
    if spec.image is not None:
        if x.shape[1] != spec.image[0] * spec.image[1]:
            raise FileError(f"X in '{path}' has {x.shape[1]} features: expected images of {spec.image}")
        # MATLAB writes columns first; the transpose is upright
        x = x.reshape(-1, 1, spec.image[1], spec.image[0]).transpose(0, 1, 3, 2)
    top = 255.0 if spec.image is not None else None
    split = RawSplit(np.ascontiguousarray(x), y - 1, str(path))
    return RawData(spec.name, split, None, spec.class_names, images=spec.image is not None, top=top)
