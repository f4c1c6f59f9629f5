"""What a stranger is told whose Keras cannot be used."""

import runpy
import sys

import pytest

pytest.importorskip("keras")

import keras

from regraft.errors import InputError, MissingDependency
from regraft.integrations.keras import required


def start():
    return runpy.run_path(required.__file__)


@pytest.fixture
def other_keras(monkeypatch, tmp_path):
    """A package of the name keras with this code in its place."""

    def make(code):
        (tmp_path / "keras.py").write_text(code)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "keras")

    return make


def test_the_backend_becomes_torch_where_nothing_else_was_chosen(monkeypatch, other_keras):
    monkeypatch.delenv("KERAS_BACKEND")
    other_keras(
        "import os, types; chosen = os.environ['KERAS_BACKEND']; "
        "backend = types.SimpleNamespace(backend=lambda: chosen)"
    )
    assert start()["keras"].chosen == "torch"


def test_another_backend_is_told(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(InputError, match=r"the backend of Keras is 'jax'.* KERAS_BACKEND=torch"):
        start()


def test_a_backend_that_is_not_installed_is_told(monkeypatch, other_keras):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    other_keras("import a_backend_that_is_not_there")
    with pytest.raises(InputError, match="Keras cannot start its backend 'tensorflow'"):
        start()


def test_a_missing_keras_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(MissingDependency, match=r"pip install 'regraft\[keras\]'"):
        start()
