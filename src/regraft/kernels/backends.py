"""Which of several equal computations of a sparse product runs: compiled C, numba's loops or torch's CSR."""

from __future__ import annotations

import os
from types import ModuleType

from regraft.errors import InputError, unknown
from regraft.kernels import csr_linear, native_linear, numba_linear

BACKENDS: dict[str, ModuleType] = {"native": native_linear, "numba": numba_linear, "csr": csr_linear}
"""By name, the fastest first. Each has ``available()``, ``forward`` and ``backward``."""

NEEDS = {
    "native": "install a C compiler and reinstall regraft",
    "numba": "run `pip install 'regraft[numba]'`",
    "csr": "install a torch that has MKL",
}
"""What to do where one is missing."""


def installed() -> list[str]:
    """Names of the backends that can run here, the fastest first.

    >>> set(installed()) <= set(BACKENDS)
    True
    """
    return [name for name, module in BACKENDS.items() if module.available()]


def checked(name: str) -> str:
    """``name``, if such a backend exists and can run here.

    Raises:
        InputError: it does not, or cannot.
    """
    if name not in BACKENDS:
        raise unknown("backend", name, BACKENDS)
    if not BACKENDS[name].available():
        raise InputError(f"the backend {name!r} is not installed: {NEEDS[name]}, or choose no backend")
    return name


_wanted = os.environ.get("REGRAFT_BACKEND") or None
_forced = None if _wanted is None else checked(_wanted)


def force(name: str | None) -> str | None:
    """Let sparse products run on one backend; None for the fastest that is installed.

    Returns:
        what was in force before, for the same function.

    Raises:
        InputError: an unknown backend, or one that is not installed.
    """
    global _forced
    before, _forced = _forced, None if name is None else checked(name)
    return before


def current() -> str | None:
    """The backend in use: ``"native"``, ``"numba"`` or ``"csr"``; None where every layer is materialised.

    >>> current() in (*BACKENDS, None)
    True
    """
    if _forced is not None:
        return _forced
    return next((name for name, module in BACKENDS.items() if module.available()), None)
