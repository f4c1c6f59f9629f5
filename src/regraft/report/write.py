"""Writing the report."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regraft.errors import FileError, MissingDependency
from regraft.files import atomic_write
from regraft.report import page
from regraft.report.schema import check


def render(results: Mapping[str, Any]) -> str:
    """The report as one HTML page; see :class:`Results` for the parts. Equal results give equal bytes.

    >>> html = render({"title": "Two epochs", "curves": [
    ...     {"name": "seed 0", "epochs": [1, 2], "accuracy": [0.8, 0.9]}]})
    >>> "After training, the network reaches 90.0 % test accuracy." in html
    True

    Raises:
        InputError: ``results`` has an unknown part or one of the wrong form.
        MissingDependency: matplotlib or jinja2 is not installed.
    """
    return page.render(check(results))


def check_available() -> None:
    """Raise MissingDependency unless a report can be written: call it before long work."""
    for package in ("matplotlib", "jinja2"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingDependency(package, "report", "a report") from error


def write(path: str | Path, results: Mapping[str, Any]) -> Path:
    """Write the report to ``path``, whole or not at all; folders are made as needed. Returns the path.

    Raises:
        InputError: ``results`` has an unknown part or one of the wrong form.
        FileError: the file cannot be written.
    """
    html = render(results)
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the folder '{target.parent}': {error.strerror or error}") from error
    with atomic_write(target) as file:
        file.write(html.encode("utf-8"))
    return target
