"""Downloads through scikit-learn's real ``fetch_openml``; only the network is replaced."""

from __future__ import annotations

import email.message
import io
import json
import socket
import urllib.error
import urllib.response
from dataclasses import replace
from urllib.parse import urlparse

import numpy as np
import pytest
import torch

from regraft import data
from regraft.data import catalogue
from regraft.errors import FileError

RNG = np.random.default_rng(0)


class OpenML:
    """Answers as www.openml.org does for one set."""

    def __init__(self, data_id: int, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y, self.asked = x, y, []
        columns = [f"pixel{i + 1}" for i in range(x.shape[1])]
        plain = {"is_ignore": "false", "is_row_identifier": "false", "number_of_missing_values": "0"}
        features = [
            {"index": str(i), "name": c, "data_type": "numeric", "is_target": "false", **plain}
            for i, c in enumerate(columns)
        ]
        features.append(
            {"index": str(len(columns)), "name": "class", "data_type": "nominal", "is_target": "true",
             "nominal_values": [str(i) for i in range(10)], **plain}
        )  # fmt: skip
        arff = ["@RELATION images", *(f"@ATTRIBUTE {c} real" for c in columns)]
        arff += ["@ATTRIBUTE class {0,1,2,3,4,5,6,7,8,9}", "@DATA"]
        arff += [",".join(map(str, [*row, label])) for row, label in zip(x.tolist(), y.tolist(), strict=True)]
        content = "\n".join(arff).encode()
        import hashlib

        description = {
            "id": str(data_id), "name": "images", "version": "1", "description": "images", "format": "ARFF",
            "file_id": "9", "status": "active", "default_target_attribute": "class",
            "url": "https://www.openml.org/data/v1/download/9/images.arff",
            "md5_checksum": hashlib.md5(content).hexdigest(),
        }  # fmt: skip
        qualities = [{"name": "NumberOfInstances", "value": str(float(len(x)))}]
        self.pages = {
            f"/data/{data_id}": json.dumps({"data_set_description": description}).encode(),
            f"/data/features/{data_id}": json.dumps({"data_features": {"feature": features}}).encode(),
            f"/data/qualities/{data_id}": json.dumps({"data_qualities": {"quality": qualities}}).encode(),
            "/download/9": content,
        }

    def __call__(self, request, *args, **kwargs):
        url = getattr(request, "full_url", request)
        path = urlparse(url).path
        self.asked.append(path)
        for end in sorted(self.pages, key=len, reverse=True):
            if end in path:
                return urllib.response.addinfourl(
                    io.BytesIO(self.pages[end]), email.message.Message(), url, 200
                )
        raise urllib.error.HTTPError(url, 404, "no such page", email.message.Message(), None)


@pytest.fixture
def small(monkeypatch):
    """A server with ``n`` samples of a set, of which the last have ``test_counts`` per class."""

    def serve(name: str, n: int = 30, shape=(2, 3), test_counts=(1,) * 10, change=None) -> OpenML:
        source = replace(catalogue.SOURCES[name], shape=shape, test_counts=test_counts, samples=n)
        monkeypatch.setitem(catalogue.SOURCES, name, source)
        y = np.arange(n) % 10
        x = RNG.integers(0, 256, (n, int(np.prod(shape))))
        if change is not None:
            x, y = change(x, y)
        server = OpenML(source.data_id, x, y)
        monkeypatch.setattr("sklearn.datasets._openml.urlopen", server)
        return server

    return serve


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_a_download_leaves_the_original_files(tmp_path, small, name):
    server = small(name)
    made = data.load(name, data_dir=tmp_path, download=True, standardise=False)
    assert torch.equal(made.train.x.flatten(1), torch.from_numpy(server.x[:20]).float())
    assert made.test.y.tolist() == list(range(10))
    assert sorted(p.name for p in (tmp_path / name).iterdir()) == [
        "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz",
        "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
    ]  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == [name], "nothing else is left behind"
    asked = len(server.asked)
    again = data.load(name, data_dir=tmp_path, download=True, standardise=False)
    assert len(server.asked) == asked, "what is there is not fetched again"
    assert torch.equal(again.train.x, made.train.x)


def test_cifar10_is_stored_as_its_python_version(tmp_path, small):
    server = small("cifar-10", n=40, shape=(3, 32, 32))
    made = data.load("cifar-10", data_dir=tmp_path, download=True, standardise=False)
    assert made.input_shape == (3, 32, 32)
    assert torch.equal(made.train.x.flatten(1), torch.from_numpy(server.x[:30]).float())
    assert torch.equal(made.test.x.flatten(1), torch.from_numpy(server.x[30:]).float())
    files = sorted(p.name for p in (tmp_path / "cifar-10-batches-py").iterdir())
    assert files == ["batches.meta", *(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    assert made.class_names[0] == "airplane"


def test_the_ids_shapes_and_sizes_are_the_published_ones():
    sources = catalogue.SOURCES
    assert {n: (s.data_id, s.samples, sum(s.test_counts), s.shape) for n, s in sources.items()} == {
        "mnist": (554, 70_000, 10_000, (28, 28)),
        "fashion-mnist": (40996, 70_000, 10_000, (28, 28)),
        "cifar-10": (40927, 60_000, 10_000, (3, 32, 32)),
    }


def test_the_network_is_left_alone_unless_asked(tmp_path, small):
    server = small("mnist")
    with pytest.raises(FileError, match="no MNIST here"):
        data.load("mnist", data_dir=tmp_path)
    assert server.asked == []


def test_a_corrupt_file_is_named_and_not_replaced(tmp_path, small, write_idx):
    server = small("mnist")
    path = write_idx(tmp_path / "mnist") / "train-images-idx3-ubyte.gz"
    path.write_bytes(b"\x1f\x8bnonsense")
    with pytest.raises(FileError, match="train-images"):
        data.load("mnist", data_dir=tmp_path, download=True)
    assert server.asked == []
    assert path.read_bytes() == b"\x1f\x8bnonsense"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y: (x[::-1], np.zeros_like(y)), "are not the test set"),
        (lambda x, y: (x[:-1], y[:-1]), "nothing was written"),
        (lambda x, y: (x[:, :-1], y), "nothing was written"),
        (lambda x, y: (x + 1, y), "nothing was written"),
    ],
    ids=["another order", "a row short", "a column short", "not pixels"],
)
def test_another_answer_than_expected_writes_nothing(tmp_path, small, change, words):
    small("mnist", change=lambda x, y: change(np.maximum(x, 255), y))
    with pytest.raises(FileError, match=words):
        data.load("mnist", data_dir=tmp_path, download=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "failure",
    [
        urllib.error.URLError(socket.gaierror(-2, "Name or service not known")),
        TimeoutError("timed out"),
        ConnectionResetError("reset by peer"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_without_a_network_the_reason_and_the_way_out_are_named(tmp_path, monkeypatch, failure):
    def fail(*args, **kwargs):
        raise failure

    monkeypatch.setattr("sklearn.datasets._openml.urlopen", fail)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(
        FileError, match=r"cannot download 'mnist' from OpenML \(.*check the network"
    ) as caught:
        data.load("mnist", data_dir=tmp_path / "new", download=True)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_truncated_answer_is_refused(tmp_path, small):
    server = small("mnist")
    server.pages["/download/9"] = server.pages["/download/9"][:-40]
    with pytest.raises(FileError, match="cannot download 'mnist'"):
        data.load("mnist", data_dir=tmp_path, download=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path, small):
    small("mnist")
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(FileError, match=r"cannot write 'mnist' to .*choose another data_dir"):
        data.load("mnist", data_dir=tmp_path / "file", download=True)


def test_sets_that_need_no_download_ignore_it():
    assert data.load("iris", download=True).name == "iris"
