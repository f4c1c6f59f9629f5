"""The compiled kernels as seen from Python: whether they are there, on which instruction set and threads.

The functions here take raw tensors and check nothing that costs time; :mod:`regraft.kernels.compressed`
sees to it that only checked positions and fitting tensors arrive.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

import torch

from regraft.errors import InputError

ISAS = ("baseline", "avx2", "avx512")


def _load() -> ModuleType | None:
    try:
        from regraft.kernels import _native  # type: ignore[attr-defined, unused-ignore]
    except ImportError:
        return None
    module: ModuleType = _native
    return module


_module = _load()


def available() -> bool:
    """Whether the compiled kernels are installed."""
    return _module is not None


def module() -> Any:
    """The compiled module; only to be called where :func:`available` holds."""
    assert _module is not None
    return _module


def use_isa(name: str | None = None) -> str | None:
    """Use the instruction set ``name``, or the next smaller one that the machine has; default: the best.

    Returns:
        the one in use, None without compiled kernels.

    Raises:
        InputError: a name that is not one of ``ISAS``.
    """
    if name is not None and name not in ISAS:
        raise InputError(
            f"the instruction set is {name!r} (REGRAFT_ISA), but must be one of {', '.join(ISAS)}"
        )
    if _module is None:
        return None
    used: str = _module.use_isa(name)
    return used


def isa() -> str | None:
    """The instruction set in use; None without compiled kernels."""
    return _isa


def get_threads() -> int:
    """Threads that a compiled kernel may use.

    >>> get_threads() >= 1
    True
    """
    return 1 if _module is None else int(_module.get_threads())


def set_threads(threads: int) -> None:
    """Let the compiled kernels use up to ``threads`` threads; small layers use fewer.

    Results do not depend on the number of threads. The default is the environment variable
    ``REGRAFT_THREADS``, else 1.

    >>> before = get_threads()
    >>> set_threads(2)
    >>> set_threads(before)

    Raises:
        InputError: ``threads`` is not a positive integer.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InputError(f"threads is {threads!r}, but must be a positive integer")
    if _module is not None:
        _module.set_threads(min(threads, 64))


def is_float64(dtype: torch.dtype) -> bool:
    """Which of the two compiled element types ``dtype`` is."""
    return dtype == torch.float64


def _threads_from_environment() -> int:
    text = os.environ.get("REGRAFT_THREADS", "1")
    try:
        return int(text)
    except ValueError:
        raise InputError(f"REGRAFT_THREADS is {text!r}, but must be a positive integer") from None


_isa = use_isa(os.environ.get("REGRAFT_ISA") or None)
set_threads(_threads_from_environment())
