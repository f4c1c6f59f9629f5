"""Which of several equal computations of a sparse product runs: compiled C, numba's loops or torch's CSR."""

from __future__ import annotations

import os
from types import ModuleType

import torch

from regraft.errors import InputError, unknown
from regraft.kernels import csr_linear, native_linear, numba_linear

BACKENDS: dict[str, ModuleType] = {"native": native_linear, "numba": numba_linear, "csr": csr_linear}
"""By name, the fastest first, on the CPU. Each has ``available()``, ``forward`` and ``backward``."""

GPU: dict[str, ModuleType] = {"csr": csr_linear}
"""The same on a GPU, where each has ``available_on_gpu()`` as well."""

GPU_DEVICES = ["cuda"]
"""Types of device that the backends of ``GPU`` serve."""

NEEDS = {
    "native": "install a C compiler and reinstall regraft",
    "numba": "run `pip install 'regraft[numba]'`",
    "csr": "install a torch that has MKL",
}
"""What to do where one is missing."""


def installed(device: str = "cpu") -> list[str]:
    """Names of the backends that can run here on a type of device, the fastest first.

    >>> set(installed()) <= set(BACKENDS)
    True
    >>> installed("meta")
    []
    """
    if device == "cpu":
        return [name for name, module in BACKENDS.items() if module.available()]
    if device in GPU_DEVICES:
        return [name for name, module in GPU.items() if module.available_on_gpu()]
    return []


def checked(name: str) -> str:
    """``name``, if such a backend exists and can run here, on the CPU or on a GPU.

    Raises:
        InputError: it does not, or cannot.
    """
    known = BACKENDS | GPU
    if name not in known:
        raise unknown("backend", name, known)
    if name not in installed() and not (torch.cuda.is_available() and name in installed("cuda")):
        raise InputError(f"the backend {name!r} is not installed: {NEEDS[name]}, or choose no backend")
    return name


_wanted = os.environ.get("REGRAFT_BACKEND") or None
_forced = None if _wanted is None else checked(_wanted)


def force(name: str | None) -> str | None:
    """Let sparse products run on one backend; None for the fastest that is installed. On a device that it
    does not serve nothing changes.

    Returns:
        what was in force before, for the same function.

    Raises:
        InputError: an unknown backend, or one that is not installed.
    """
    global _forced
    before, _forced = _forced, None if name is None else checked(name)
    return before


def current(device: str = "cpu") -> str | None:
    """The backend in use on a type of device: ``"native"``, ``"numba"`` or ``"csr"``; None where every layer
    is materialised.

    >>> current() in (*BACKENDS, None)
    True
    """
    if device == "cpu":
        if _forced in BACKENDS and BACKENDS[_forced].available():
            return _forced
        return next((name for name, module in BACKENDS.items() if module.available()), None)
    there = installed(device)
    return _forced if _forced in there else next(iter(there), None)


def serving(name: str, device: str) -> ModuleType:
    """The backend called ``name``, for tensors on a type of device.

    Raises:
        InputError: it does not compute there.
    """
    table = BACKENDS if device == "cpu" else GPU if device in GPU_DEVICES else {}
    if name not in table:
        there = installed(device)
        instead = f"choose {' or '.join(map(repr, there))}" if there else "materialise the weight"
        raise InputError(
            f"the backend {name!r} does not compute on {device!r}, where the tensors are: {instead}, or move "
            "them"
        )
    return table[name]
