"""No reader runs what a file asks it to run: by what the package names, and by files that try."""

from __future__ import annotations

import ast
import io
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

import regraft
from regraft import data
from regraft.checkpoint import read_header
from regraft.data.cifar import read_cifar100
from regraft.data.idx import read_idx
from regraft.data.matlab import read_matrices
from regraft.data.unpickle import read_pickle
from regraft.export.numpy_runtime import Network
from regraft.scores.learned import Learned
from regraft.studies.grid.read import read_grid
from regraft.studies.store.query import contents
from regraft.train import checkpoints

SOURCE = Path(regraft.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

# what makes objects of bytes, or runs them, beyond the calls that tests/test_structure.py forbids
MODULES = {
    "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "runpy", "code",
    "codeop",
    "torch.hub", "torch.package", "torch.serialization", "xmlrpc",
}  # fmt: skip
CALLS = {
    "torch.load", "torch.jit.load", "torch.export.load", "pandas.read_pickle", "yaml.unsafe_load",
    "yaml.full_load",
    "yaml.load_all", "yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader", "numpy.fromregex",
    "keras.models.load_model",
    "safetensors.torch.load_model",
}  # fmt: skip
MAY_PICKLE = {
    "data/unpickle.py": "reads CIFAR's files with a machine of its own that knows no functions",
    "data/openml.py": "writes CIFAR's format, which it does not read",
}


def named(text):
    """Modules and dotted names that a source file names, as they are called outside of it."""
    tree = ast.parse(text)
    own = {}
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {a.name for a in node.names}
            own |= {
                a.asname or a.name.partition(".")[0]: a.name if a.asname else a.name.partition(".")[0]
                for a in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
            own |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    dotted = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, *rest = ast.unparse(node).split(".")
            dotted.add(".".join([own.get(first, first), *rest]))
    return modules, dotted | {own[n.id] for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id in own}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_nothing_makes_objects_of_bytes(path):
    modules, dotted = named(path.read_text())
    found = {m for m in modules if m in MODULES or m.rpartition(".")[0] in MODULES} | (dotted & CALLS)
    if path.relative_to(SOURCE).as_posix() in MAY_PICKLE:
        found -= {"pickle"}
    assert not found


def test_the_one_that_writes_pickles_reads_none():
    _, dotted = named((SOURCE / "data" / "openml.py").read_text())
    assert {name for name in dotted if name.startswith("pickle.")} == {"pickle.dumps"}


@pytest.mark.parametrize(
    "text",
    [
        "import pickle as p", "from joblib import load", "import torch\ntorch.jit.load('x')",
        "from yaml import Loader\nLoader",
        "import pandas as pd\npd.read_pickle('x')", "from torch import package",
    ],
)  # fmt: skip
def test_the_scan_finds_what_it_looks_for(text):
    modules, dotted = named(text)
    assert modules & MODULES or {m.rpartition(".")[0] for m in modules} & MODULES or dotted & CALLS


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def forms(payload):
    """The payload as a pickle, in an array of objects, in archives of such, as YAML that makes an object."""
    plain = pickle.dumps(payload)
    array = io.BytesIO()
    np.save(array, np.array([payload], dtype=object), allow_pickle=True)
    archive = io.BytesIO()
    np.savez(archive, program=np.array([payload], dtype=object), X=np.array([payload], dtype=object))
    torch_like = io.BytesIO()
    with zipfile.ZipFile(torch_like, "w") as file:
        file.writestr("archive/data.pkl", plain)
    yaml = f"grid: !!python/object/apply:builtins.open [{payload.path}, w]\n".encode()
    return {
        "pickle": plain, "old pickle": pickle.dumps(payload, 0), "array": array.getvalue(),
        "archive": archive.getvalue(),
        "torch": torch_like.getvalue(), "yaml": yaml,
    }  # fmt: skip


READERS = {
    "network": regraft.load,
    "header": read_header,
    "checkpoint": checkpoints.read,
    "score": Learned.load,
    "labels": lambda path: read_idx(path, 1),
    "matlab": lambda path: read_matrices(path, ("X",)),
    "cifar": read_pickle,
    "cifar100": lambda path: read_cifar100("cifar100", [path.parent], coarse=False),
    "images": lambda path: data.load(str(path.parent / "images")),
    "export": Network,
    "grid": read_grid,
    "database": contents,
}


@pytest.mark.parametrize("form", ["pickle", "old pickle", "array", "archive", "torch", "yaml"])
@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_would_run_something_runs_nothing(tmp_path, reader, form):
    canary = tmp_path / "canary"
    content = forms(Payload(canary))[form]
    for name in ("train", "test", "meta"):
        (tmp_path / name).write_bytes(content)
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "1.png").write_bytes(content)
    with pytest.raises((regraft.RegraftError, ValueError)) as caught:
        READERS[reader](tmp_path / "train")
    assert not canary.exists()
    assert re.search(r"\w", str(caught.value))


def test_the_payload_would_have_run(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "canary"))).close()  # noqa: S301
    assert (tmp_path / "canary").exists()
