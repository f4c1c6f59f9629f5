"""Modules that need a framework are collected where it is installed (Flower: see `make flower`)."""

import importlib.util
import os
import warnings
from pathlib import Path

import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")  # read by Keras when it is first imported

collect_ignore_glob = []
for framework, module in (("lightning", "lightning"), ("transformers", "huggingface"), ("keras", "keras")):
    if importlib.util.find_spec(framework) is None:
        collect_ignore_glob.append(f"src/regraft/integrations/{module}*")

if importlib.util.find_spec("flwr") is None:
    collect_ignore_glob += ["src/regraft/federated/flower/*.py", "tests/federated/flower/loopback.py"]
else:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Flower's own imports use what click will remove
        import flwr.serverapp.strategy  # noqa: F401


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Tests on another device run where they are asked for (``pytest tests/devices``, ``make unit``).

    They give the process a second device, after which a forked child cannot compute gradients, as others do.
    """
    here = collection_path == Path(__file__).parent / "tests" / "devices"
    return True if here and not any("devices" in str(argument) for argument in config.args) else None
