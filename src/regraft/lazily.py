"""Names of a package that are imported when they are first asked for (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence


def attributes(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package whose names live in modules that are not imported yet.

    Args:
        package: its name; its own modules can be asked for too.
        homes: module to the names that the package takes from it.

    >>> import regraft
    >>> regraft.Topology.__module__, regraft.kernels.__name__
    ('regraft.topology', 'regraft.kernels')
    >>> regraft.topologie
    Traceback (most recent call last):
    ...
    AttributeError: module 'regraft' has no attribute 'topologie'
    """
    home = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> object:
        if name in home:
            value = getattr(importlib.import_module(home[name]), name)
            setattr(sys.modules[package], name, value)  # the next time costs nothing
            return value
        if not name.startswith("_"):
            try:
                return importlib.import_module(f"{package}.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"{package}.{name}":
                    raise
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home})

    return get, names
