from __future__ import annotations

import math
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regraft import data
from regraft.data.matlab import read_matrices
from regraft.errors import FileError


def save(root: Path, name: str = "GLIOMA", file: str | None = None, *, x=None, y=None, **options) -> Path:
    """As scikit-feature's files: rows sorted by class, labels uint8 from 1, shape (n, 1)."""
    rng = np.random.default_rng(0)
    x = rng.normal(2.5, 1.0, (50, 7)) if x is None else x
    y = np.repeat([1, 2, 3, 4], [14, 7, 14, 15]).astype(np.uint8)[:, None] if y is None else y
    path = root / name / (file or f"{name}.mat")
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {"X": x, "Y": y}, **options)
    return path


@pytest.mark.parametrize("packed", [True, False])
def test_labels_start_at_0_and_a_third_is_for_testing(tmp_path, packed):
    save(tmp_path, do_compression=packed)
    made = data.load("GLIOMA", data_dir=tmp_path)
    assert (made.name, made.input_shape, made.classes) == ("glioma", (7,), 4)
    assert (len(made.train), len(made.test)) == (33, 17)
    both = np.array(made.train.counts()) + made.test.counts()
    assert both.tolist() == [14, 7, 14, 15]
    assert all(abs(t - n * 17 / 50) < 1 for t, n in zip(made.test.counts(), both, strict=True))
    assert made.train.y.dtype == torch.int64


def test_every_row_is_in_exactly_one_split(tmp_path):
    x = np.arange(50.0)[:, None]
    save(tmp_path, x=x)
    made = data.load("glioma", data_dir=tmp_path, standardise=False, seed=5)
    rows = torch.cat([made.train.x, made.test.x]).flatten().sort().values
    assert rows.tolist() == x.flatten().tolist()
    labels = np.repeat([0, 1, 2, 3], [14, 7, 14, 15])
    assert made.test.y.tolist() == labels[made.test.x.flatten().long().numpy()].tolist()


def test_the_seed_chooses_the_split(tmp_path):
    save(tmp_path)
    first, again, other = (data.load("glioma", data_dir=tmp_path, seed=s) for s in (0, 0, 1))
    assert torch.equal(first.test.x, again.test.x)
    assert not torch.equal(first.test.x, other.test.x)


def test_orl_faces_are_upright(tmp_path):
    face = np.arange(1024, dtype=np.float64).reshape(32, 32) % 251
    x = np.stack([face.flatten(order="F")] * 40).astype(np.uint8)
    save(tmp_path, "ORL", x=x, y=np.repeat([1, 2], 20).astype(np.uint8)[:, None])
    made = data.load("orl", data_dir=tmp_path, standardise=False)
    assert made.input_shape == (1, 32, 32)
    assert np.array_equal(made.train.x[0, 0].numpy(), face)
    assert made.classes == 40


@pytest.mark.parametrize(
    ("name", "folder", "file", "labels"),
    [
        ("lung", "LUNG", "LUNG.mat", 5),
        ("LUNG", "lung", "lung.mat", 5),
        ("Prostate_GE", "Prostate_GE", "Prostate_GE.mat", 2),
        ("prostate-ge", "Prostate_GE", "Prostate-GE.mat", 2),
        ("lung", ".", "lung.mat", 5),
    ],
)
def test_known_file_names(tmp_path, name, folder, file, labels):
    y = np.repeat(np.arange(1, labels + 1), 6).astype(np.uint8)[:, None]
    save(tmp_path, folder, file, x=np.random.default_rng(0).normal(size=(len(y), 3)), y=y)
    assert data.load(name, data_dir=tmp_path).classes == labels


def test_other_variables_are_skipped(tmp_path):
    path = save(tmp_path)
    held = scipy.io.loadmat(path)
    kept = {k: held[k] for k in "XY"}
    others = {"A": "text", "B": {"field": np.ones(3)}, "Z": np.array([["a", 1]], dtype=object)}
    scipy.io.savemat(path, {**others, **kept, "S": scipy.sparse.eye(3).tocsc()})
    assert len(data.load("glioma", data_dir=tmp_path).train) == 33


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "bool", ">f8"])
@pytest.mark.parametrize("shape", [(3, 4), (1, 1), (4, 0), (2, 3, 2), (1, 3)])
def test_matrices_are_what_scipy_reads(tmp_path, packed, dtype, shape):
    x = (np.arange(math.prod(shape)).reshape(shape) - 1).astype(dtype)
    path = tmp_path / "m.mat"
    scipy.io.savemat(path, {"X": x, "longer_name": x}, do_compression=packed)
    held, theirs = read_matrices(path, ("X", "longer_name")), scipy.io.loadmat(path)
    for name in held.keys() | {"X"}:
        assert held[name].dtype == theirs[name].dtype
        assert np.array_equal(held[name], theirs[name])


def test_big_endian_files(tmp_path):
    """SciPy writes little-endian files alone, so this one is put together by hand."""
    element = struct.pack(">2I", 6, 8) + struct.pack(">2I", 6, 0)  # flags: class double
    element += struct.pack(">2I", 5, 8) + struct.pack(">2i", 1, 2)
    element += struct.pack(">2H", 1, 1) + b"X\0\0\0"
    element += struct.pack(">2I", 9, 16) + struct.pack(">2d", 1.5, -2.0)
    path = tmp_path / "m.mat"
    path.write_bytes(
        b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI" + struct.pack(">2I", 14, len(element)) + element
    )
    assert np.array_equal(scipy.io.loadmat(path)["X"], [[1.5, -2.0]])
    assert np.array_equal(read_matrices(path, ("X",))["X"], [[1.5, -2.0]])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no MATLAB .mat file"),
        (b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n", "version 7.3: save it again"),
        (bytes(200), "no MATLAB .mat file"),
        (bytes(124) + b"\x00\x01IM" + b"\x0e\0\0", "ends within a tag"),
    ],
)
def test_files_of_another_kind(tmp_path, content, words):
    path = tmp_path / "GLIOMA.mat"
    path.write_bytes(content)
    with pytest.raises(FileError, match=words) as caught:
        data.load("glioma", data_dir=tmp_path)
    assert str(path) in str(caught.value)


def test_level_4_is_refused(tmp_path):
    save(tmp_path, format="4")
    with pytest.raises(FileError, match=r"no MATLAB \.mat file of version 5"):
        data.load("glioma", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": np.zeros((50, 1), np.uint8)}, "label 0, but GLIOMA's labels are 1 to 4"),
        ({"y": np.full((50, 1), 5, np.uint8)}, "label 5"),
        ({"y": np.full((50, 1), 1.5)}, "not whole numbers"),
        ({"y": np.full((50, 1), np.nan)}, "not whole numbers"),
        ({"y": np.ones((49, 1), np.uint8)}, "50 samples, but .* 49 labels"),
        ({"y": np.ones((50, 2), np.uint8)}, r"shape \(50, 2\)"),
        ({"x": np.full((50, 7), np.nan)}, "NaN or infinite features, first in sample 0"),
        ({"x": np.where(np.arange(350).reshape(50, 7) == 20, np.inf, 1.0)}, "first in sample 2"),
        ({"x": np.ones((50, 7)) * 1j}, "X in .* is complex"),
        (
            {"x": np.where(np.arange(350).reshape(50, 7) % 7 == 3, 1e200, np.arange(350).reshape(50, 7))},
            "large",
        ),
        ({"x": np.ones((50, 7, 2))}, r"shape \(50, 7, 2\)"),
        ({"x": scipy.sparse.eye(50).tocsc()}, "X in .* is sparse"),
        ({"x": np.array([["text"]])}, "X in .* is text"),
        ({"x": np.array([[{"a": 1}]], dtype=object)}, "X in .* is a cell array: expected"),
        ({"x": np.zeros((0, 7)), "y": np.zeros((0, 1))}, "is empty"),
    ],
)
def test_bad_contents_are_named(tmp_path, change, words):
    path = save(tmp_path, **change)
    with pytest.raises(FileError, match=words) as caught:
        data.load("glioma", data_dir=tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_matrix_and_missing_file(tmp_path):
    with pytest.raises(FileError, match=r"no GLIOMA here: expected GLIOMA.mat in .*https"):
        data.load("glioma", data_dir=tmp_path)
    (tmp_path / "GLIOMA").mkdir()
    scipy.io.savemat(tmp_path / "GLIOMA" / "GLIOMA.mat", {"X": np.ones((3, 2))})
    with pytest.raises(FileError, match="no matrix 'Y'"):
        data.load("glioma", data_dir=tmp_path)


def test_orl_of_another_size_is_named(tmp_path):
    save(tmp_path, "ORL", x=np.ones((40, 100), np.uint8), y=np.ones((40, 1), np.uint8))
    with pytest.raises(FileError, match="100 features: expected images"):
        data.load("orl", data_dir=tmp_path)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    packed=st.booleans(),
    cut=st.one_of(st.just(1.0), st.floats(0, 1)),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
)
def test_corruption_ends_in_our_errors_alone(refusal, corrupted, packed, cut, changes):
    with tempfile.TemporaryDirectory() as root:
        path = save(Path(root), do_compression=packed)
        path.write_bytes(corrupted(path.read_bytes(), cut, changes))
        message = refusal(lambda: data.load("glioma", data_dir=root))
        assert message is None or str(path) in message or "glioma" in message
