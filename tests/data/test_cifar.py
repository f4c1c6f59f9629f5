from __future__ import annotations

import os
import pickle
import pickletools
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regraft import data
from regraft.data.unpickle import read_pickle
from regraft.errors import FileError, InputError


def test_python2_pickles_are_what_the_original_files_are(python2):
    """The fixture's opcodes: byte strings, no unicode; NumPy's old module name."""
    content = python2({"data": np.zeros((1, 3072), np.uint8), "labels": [1]})
    codes = {op.name: arg for op, arg, _ in pickletools.genops(content)}
    assert codes["PROTO"] == 2
    assert {"SHORT_BINSTRING", "BINSTRING", "REDUCE", "BUILD"} <= codes.keys()
    assert b"numpy.core.multiarray" in content
    assert not {"BINUNICODE", "BINBYTES", "SHORT_BINBYTES"} & codes.keys()


@pytest.mark.parametrize(
    "dump",
    ["python2", *(pytest.param(partial(pickle.dumps, protocol=p), id=f"protocol {p}") for p in range(2, 6))],
)
def test_reads_every_way_such_files_are_written(tmp_path, write_cifar100, python2, dump):
    write_cifar100(tmp_path / "cifar-100-python", python2 if dump == "python2" else dump)
    made = data.load("cifar-100", data_dir=tmp_path, standardise=False)
    x = np.random.default_rng(0).integers(0, 256, (24, 3072), dtype=np.uint8)
    assert made.input_shape == (3, 32, 32)
    assert torch.equal(made.train.x, torch.from_numpy(x.reshape(-1, 3, 32, 32)).float())
    # the 2nd value of the 3rd row of the green plane
    assert made.train.x[5, 1, 2, 1] == float(x[5, 1024 + 2 * 32 + 1])
    assert made.train.y.tolist() == [i % 6 for i in range(24)]
    assert made.class_names == tuple("abcdef")


def test_coarse_labels_and_the_subset_folder(tmp_path, write_cifar100):
    write_cifar100(tmp_path / "cifar100-subset" / "cifar-100-python")
    made = data.load("cifar100-subset", data_dir=tmp_path, coarse=True)
    assert made.class_names == ("even", "odd")
    assert made.test.counts() == [6, 6]
    assert made.name == "cifar100-subset"


def test_coarse_is_for_cifar100_alone():
    with pytest.raises(InputError, match="coarse=True"):
        data.load("digits", coarse=True)


def test_cifar10_batches_are_joined_in_order(tmp_path, write_cifar10):
    write_cifar10(tmp_path / "cifar-10-batches-py", batches=3)
    made = data.load("cifar10", data_dir=tmp_path, standardise=False)
    third = np.random.default_rng(2).integers(0, 256, (30, 3072), dtype=np.uint8)
    assert (len(made.train), len(made.test)) == (60, 10)
    assert torch.equal(made.train.x[30:].flatten(1), torch.from_numpy(third).float())
    assert made.class_names[6] == "frog"


def test_a_missing_batch_is_named(tmp_path, write_cifar10):
    folder = write_cifar10(tmp_path / "cifar-10-batches-py", batches=3)
    (folder / "data_batch_2").unlink()
    with pytest.raises(FileError, match="but not data_batch_2"):
        data.load("cifar-10", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["cifar-10", "cifar-100", "cifar100-subset"])
def test_missing_folders(tmp_path, name):
    with pytest.raises(FileError, match=r"expected .* get them from https"):
        data.load(name, data_dir=tmp_path)


class Evil:
    """Runs a shell command when unpickled the usual way."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("where", ["whole", "entry", "inside the array"])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, write_cifar100, protocol, where):
    marker = tmp_path / "ran"
    evil = Evil(f"touch '{marker}'")
    folder = write_cifar100(tmp_path / "cifar-100-python")
    held = pickle.loads((folder / "train").read_bytes(), encoding="latin1")  # noqa: S301
    if where == "whole":
        held = evil
    elif where == "entry":
        held["more"] = evil
    else:
        held["data"] = np.array([evil], dtype=object)
    content = pickle.dumps(held, protocol=protocol)
    path = folder / "train"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"asks to run '(posix|nt)\.system'") as caught:
        data.load("cifar-100", data_dir=tmp_path)
    assert str(path) in str(caught.value)
    assert not marker.exists()
    # the file is really malicious: the usual reader runs it
    pickle.loads(content, encoding="latin1")  # noqa: S301
    assert marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy.core.multiarray\nscalar\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__new__\x93.",  # a dotted name through an allowed one
        b"(S'echo'\nios\nsystem\n.",
        b"\x80\x02cnumpy\nndarray\n}S'__call__'\nI1\nsb.",  # a state for a function
        b"\x80\x02cnumpy\ndtype\nN}S'_kind'\nS'encode'\ns\x86b.",
        b"\x80\x02cnumpy\ndtype\n)\x81.",  # dtype.__new__
        b"cnumpy\nndarray\n(tR.",
        b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
        b"\x80\x04P1\n.",
        b"\x80\x04\x82\x01.",
        b"I1\n.",
        b"(lp0\n.",
        b".",
        b"",
    ],
)
def test_hand_made_pickles_are_refused(tmp_path, content):
    path = tmp_path / "train"
    path.write_bytes(content)
    with pytest.raises(FileError) as caught:
        read_pickle(path)
    assert str(path) in str(caught.value)


def test_arrays_of_objects_and_lying_shapes_are_refused(tmp_path):
    for array in (np.array([None]), np.array(["a"]), np.zeros(2, dtype="datetime64[s]")):
        (tmp_path / "f").write_bytes(pickle.dumps({"data": array}, protocol=2))
        with pytest.raises(FileError, match="cannot read"):
            read_pickle(tmp_path / "f")
    content = pickle.dumps({"data": np.zeros((3, 5), np.uint8)}, protocol=2)
    (tmp_path / "f").write_bytes(content.replace(b"K\x03K\x05", b"K\x04K\x05"))
    with pytest.raises(FileError, match="shape"):
        read_pickle(tmp_path / "f")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<i8", ">i4", "u1", "<f4"])
@pytest.mark.parametrize("protocol", [2, 5])
def test_arrays_come_out_as_pickle_itself_reads_them(tmp_path, order, dtype, protocol):
    array = np.asarray(np.arange(12).reshape(3, 4), dtype=dtype, order=order)
    (tmp_path / "f").write_bytes(pickle.dumps({"data": array}, protocol=protocol))
    held = read_pickle(tmp_path / "f")["data"]
    assert held.dtype == array.dtype
    assert np.array_equal(held, array)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": np.zeros((24, 100), np.uint8)}, r"uint8 of shape \(24, 100\)"),
        ({"data": np.zeros((24, 3072), np.int64)}, "int64 of shape"),
        ({"data": [1, 2]}, "list: expected uint8"),
        ({"data": np.zeros((23, 3072), np.uint8)}, "23 images, but 24 labels"),
        ({"data": np.zeros((0, 3072), np.uint8), "fine_labels": []}, "is empty"),
        ({"fine_labels": [6] * 24}, "label 6, but expected 0 to 5"),
        ({"fine_labels": [-1] * 24}, "label -1"),
        ({"fine_labels": ["a"] * 24}, "not a list of whole numbers"),
        ({"fine_labels": [[1]] * 24}, "not a list of whole numbers"),
        ({"fine_labels": None}, "not a list of whole numbers"),
    ],
)
def test_bad_contents_are_named(tmp_path, write_cifar100, python2, change, words):
    path = write_cifar100(tmp_path / "cifar-100-python") / "train"
    held = pickle.loads(path.read_bytes(), encoding="latin1")  # noqa: S301
    path.write_bytes(pickle.dumps({**held, **change}, protocol=2))
    with pytest.raises(FileError, match=words) as caught:
        data.load("cifar-100", data_dir=tmp_path)
    assert str(path) in str(caught.value)


def test_another_sets_file_is_named(tmp_path, write_cifar100, write_cifar10):
    path = write_cifar100(tmp_path / "cifar-100-python") / "train"
    other = write_cifar10(tmp_path / "ten") / "test_batch"
    path.write_bytes(other.read_bytes())
    with pytest.raises(FileError, match="no entry 'fine_labels'"):
        data.load("cifar-100", data_dir=tmp_path)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.one_of(st.just(1.0), st.floats(0, 1)),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=5),
    protocol=st.sampled_from([0, 2, 4, 5]),
)
def test_corruption_ends_in_our_errors_alone(refusal, corrupted, cut, changes, protocol):
    held = {
        "data": np.arange(40, dtype=np.uint8).reshape(4, 10),
        "labels": [1, 2, 3, 300],
        "names": [b"a", "b"],
    }
    with tempfile.TemporaryDirectory() as root:
        path = Path(root) / "train"
        path.write_bytes(corrupted(pickle.dumps(held, protocol=protocol), cut, changes))
        message = refusal(lambda: read_pickle(path))
        assert message is None or str(path) in message
