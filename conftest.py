"""Modules that need Flower are collected where it is installed (extra ``federated``, ``make flower``)."""

import importlib.util
import warnings

if importlib.util.find_spec("flwr") is None:
    collect_ignore_glob = ["src/regraft/federated/flower/*.py", "tests/federated/flower/loopback.py"]
else:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Flower's own imports use what click will remove
        import flwr.serverapp.strategy  # noqa: F401
