"""Modules that need a framework are collected where it is installed (Flower: see `make flower`)."""

import importlib.util
import os
import warnings

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
