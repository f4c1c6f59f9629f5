"""The shape of the house: public names, import direction, file sizes, what is never called."""

import ast
import inspect
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import regraft

ROOT = Path(__file__).parent.parent
SOURCE = Path(regraft.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
CONTRACT = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]

# Every public name of `regraft`, in one place. A new one is a promise: add it here and document it.
PUBLIC = {
    "ActivationMatching",
    "Constant",
    "Cosine",
    "ErdosRenyi",
    "Evolve",
    "Exponential",
    "ExponentialDecay",
    "LinearDecreasing",
    "Merger",
    "Oscillating",
    "RandomGrowth",
    "RegraftError",
    "RowNormalise",
    "SparseConv1d",
    "SparseConv2d",
    "SparseConv3d",
    "SparseLinear",
    "SparseWeight",
    "Topology",
    "WeightMatching",
    "__version__",
    "densify",
    "erdos_renyi",
    "erdos_renyi_kernel",
    "get_threads",
    "load",
    "merge",
    "merge_files",
    "resparsify",
    "save",
    "set_threads",
    "set_topology",
    "sparsify",
    "uniform",
}


def relative(path):
    return path.relative_to(SOURCE).as_posix()


def test_public_names_are_exactly_these():
    assert set(regraft.__all__) == PUBLIC
    assert len(regraft.__all__) == len(PUBLIC)
    assert list(regraft.__all__) == sorted(regraft.__all__)
    assert all(hasattr(regraft, name) for name in PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC - {"__version__"}))
def test_a_public_name_is_documented_with_an_example(name):
    thing = getattr(regraft, name)
    doc = inspect.getdoc(thing) or ""
    if isinstance(thing, type):
        assert doc != inspect.getdoc(thing.__mro__[1]), "an inherited docstring says nothing about this class"
    assert len(doc.split("\n")[0]) > 10
    if not inspect.ismodule(thing):
        assert ">>>" in doc


def test_the_version_is_the_packages():
    from importlib.metadata import version

    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", regraft.__version__)
    assert version("regraft") == regraft.__version__


def test_imports_go_downward():
    """The contracts are in pyproject.toml and exhaustive, so a new module must take its place there."""
    pytest.importorskip("importlinter")
    assert [c["exhaustive"] for c in CONTRACT["contracts"] if c["type"] == "layers"] == [True, True]
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as c; c()",
        "--no-cache",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_files_and_functions_are_small(path):
    text = path.read_text()
    assert text.count("\n") <= 420, "about 400 is the limit: split it, one idea to a file"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = ast.get_docstring(node, clean=False) or ""
            lines = node.end_lineno - node.lineno + 1 - documented.count("\n")
            assert lines <= 70, f"{node.name} has {lines} lines besides its docstring"


@pytest.mark.parametrize("path", [p for p in FILES if p.name == "__init__.py"], ids=relative)
def test_package_files_only_reexport(path):
    for node in ast.parse(path.read_text()).body:
        simple = isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign)
        lazy = isinstance(node, ast.FunctionDef) and node.name in ("__getattr__", "__dir__")
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert simple or lazy or typing_only or docstring, ast.unparse(node)


def test_importing_regraft_is_light():
    """Plots, tables, commands and data sets are imported by those who use them."""
    heavy = {"matplotlib", "sklearn", "scipy", "click", "rich", "jinja2", "PIL", "pandas", "tensorboard"}
    code = f"import sys, regraft; print(sorted({heavy!r} & {{m.split('.')[0] for m in sys.modules}}))"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COV_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True, env=environment
    )
    assert done.stdout.strip() == "[]"


FORBIDDEN = {
    "eval", "exec", "compile", "__import__",
    "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open",
    "torch.load", "joblib.load", "dill.load", "dill.loads", "yaml.load", "os.system",
}  # fmt: skip
# the only door for foreign pickles: it resolves no names but those of plain arrays
# runs a Python file that the user names on the command line, as `python FILE` would
OWN_STUDIES = "studies/own.py"
RESTRICTED_UNPICKLER = "data/unpickle.py"


def forbidden_calls(text):
    tree = ast.parse(text)
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.asname or a.name: a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            first, *rest = ast.unparse(node).split(".")
            called = ".".join([names.get(first, first), *rest])
            if called in FORBIDDEN:
                found.append(called)
        if (
            isinstance(node, ast.keyword)
            and node.arg == "allow_pickle"
            and ast.unparse(node.value) != "False"
        ):
            found.append("allow_pickle")
        if isinstance(node, ast.keyword) and node.arg == "shell" and ast.unparse(node.value) != "False":
            found.append("shell=True")
    return found


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_nothing_runs_code_from_data(path):
    found = forbidden_calls(path.read_text())
    if relative(path) == RESTRICTED_UNPICKLER:
        assert set(found) <= {"pickle.Unpickler"}
    elif relative(path) == OWN_STUDIES:
        assert set(found) <= {"exec", "compile"}
    else:
        assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "eval('1')",
        "import pickle\npickle.loads(b'')",
        "from pickle import loads as l\nl(b'')",
        "import torch as t\nt.load('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "class A(__import__('pickle').Unpickler): pass",
    ],
)
def test_the_scan_finds_what_it_looks_for(code):
    assert forbidden_calls(code)


MODULES = sorted(
    {p.stem for p in SOURCE.iterdir() if p.suffix in ("", ".py")}
    - {"__init__", "__main__", "__pycache__", "version"}
)


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_tests(module):
    """A test file or folder of its name, or at least a test that imports it."""
    tests = sorted((ROOT / "tests").rglob("*"))
    named = module in {p.stem.removeprefix("test_") for p in tests}
    used = re.compile(rf"(import|from) regraft\.{module}\b|from regraft import [^\n]*\b{module}\b")
    assert named or any(used.search(p.read_text()) for p in tests if p.suffix == ".py")
