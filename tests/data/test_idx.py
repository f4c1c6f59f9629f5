from __future__ import annotations

import gzip
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regraft import data
from regraft.data.idx import idx_bytes, read_idx
from regraft.errors import FileError

CORRUPTION = {
    "cut": st.floats(0, 1),
    "changes": st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
}


def test_a_literal_file(tmp_path):
    content = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255])
    (tmp_path / "f").write_bytes(content)
    assert read_idx(tmp_path / "f", 3).tolist() == [[[1, 2, 3]], [[4, 5, 255]]]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("folder", ["mnist", "MNIST/raw"])
def test_reads_plain_and_gzipped_sets(tmp_path, write_idx, packed, folder):
    write_idx(tmp_path / folder, packed=packed)
    made = data.load("mnist", data_dir=tmp_path, standardise=False)
    x = np.random.default_rng(3).integers(0, 256, (40, 5, 4), dtype=np.uint8)
    assert made.input_shape == (1, 5, 4)
    assert torch.equal(made.train.x[:, 0], torch.from_numpy(x).float())
    assert made.train.y.tolist() == [i % 10 for i in range(40)]
    assert (len(made.test), made.class_names[3], made.name) == (20, "3", "mnist")


def test_fashion_mnist_has_its_own_folder_and_names(tmp_path, write_idx):
    write_idx(tmp_path / "fashion-mnist")
    made = data.load("Fashion_MNIST", data_dir=tmp_path)
    assert made.name == "fashion-mnist"
    assert made.class_names[0] == "T-shirt/top"
    assert made.class_names[9] == "Ankle boot"


def test_a_gz_that_was_unpacked_but_kept_its_name_is_read(tmp_path, write_idx):
    folder = write_idx(tmp_path / "mnist")
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.decompress(path.read_bytes()))
    assert len(data.load("mnist", data_dir=tmp_path).train) == 40


def test_what_is_written_is_read_back(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "f.gz").write_bytes(idx_bytes(array))
    assert np.array_equal(read_idx(tmp_path / "f.gz", 3), array)
    assert idx_bytes(array) == idx_bytes(array.copy())


def test_missing_files_name_every_place_and_the_ways_out(tmp_path):
    with pytest.raises(FileError) as caught:
        data.load("mnist", data_dir=tmp_path)
    message = str(caught.value)
    for part in (str(tmp_path / "mnist"), str(tmp_path / "MNIST/raw"), "train-images-idx3-ubyte", "https://",
                 "REGRAFT_DATA", "download=True"):  # fmt: skip
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("train-images-idx3-ubyte.gz", lambda c: c[:-20], "cut short"),
        (
            "train-images-idx3-ubyte.gz",
            lambda c: gzip.compress(gzip.decompress(c)[:-1]),
            "promises 800 bytes",
        ),
        ("train-images-idx3-ubyte.gz", lambda c: gzip.compress(gzip.decompress(c) + b"x"), "holds more"),
        (
            "train-labels-idx1-ubyte.gz",
            lambda c: gzip.compress(b"\0\0\x08\x03" + bytes(12)),
            "magic number is 2051",
        ),
        ("train-labels-idx1-ubyte.gz", lambda c: b"", "ends within its header"),
        ("train-labels-idx1-ubyte.gz", lambda c: gzip.compress(idx(range(3))), "3 labels"),
        (
            "t10k-labels-idx1-ubyte.gz",
            lambda c: gzip.compress(idx([0, 10] * 10)),
            "label 10, but expected 0 to 9",
        ),
    ],
)
def test_bad_files_are_named(tmp_path, write_idx, file, content, words):
    path = write_idx(tmp_path / "mnist") / file
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(FileError, match=words) as caught:
        data.load("mnist", data_dir=tmp_path)
    assert str(path) in str(caught.value)


def test_an_empty_set_is_refused(tmp_path, write_idx):
    write_idx(tmp_path / "mnist", train=0)
    with pytest.raises(FileError, match=r"train-images-idx3-ubyte.gz' is empty"):
        data.load("mnist", data_dir=tmp_path)


def test_a_header_that_promises_more_than_memory_is_refused(tmp_path):
    (tmp_path / "f").write_bytes(struct.pack(">4I", 2051, *(2**32 - 1,) * 3) + bytes(100))
    with pytest.raises(FileError, match="holds only 100"):
        read_idx(tmp_path / "f", 3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(packed=st.booleans(), **CORRUPTION)
def test_corruption_ends_in_our_errors_alone(refusal, write_idx, corrupted, packed, cut, changes):
    with tempfile.TemporaryDirectory() as root:
        folder = write_idx(Path(root) / "mnist", 20, 10, packed=packed)
        path = folder / ("train-images-idx3-ubyte" + (".gz" if packed else ""))
        path.write_bytes(corrupted(path.read_bytes(), cut, changes))
        message = refusal(lambda: data.load("mnist", data_dir=root))
        assert message is None or str(path) in message


def idx(labels) -> bytes:
    labels = bytes(labels)
    return struct.pack(">2I", 2049, len(labels)) + labels
