"""Looks at where results will go before any work is done."""

from __future__ import annotations

import os
from pathlib import Path

from regraft.container import is_device
from regraft.errors import FileError


def check_output(path: str | Path | None) -> None:
    """Raise FileError unless a file can be written at ``path``; None and ``-`` are fine."""
    if path is None or str(path) == "-":
        return
    target = Path(path)
    if is_device(target):
        if not os.access(target, os.W_OK):
            raise FileError(f"cannot write '{path}': no permission")
        return
    if target.is_dir():
        raise FileError(f"cannot write '{path}': it is a folder; give the name of a file in it")
    if not target.parent.is_dir():
        raise FileError(
            f"cannot write '{path}': the folder '{target.parent}' does not exist; create it first"
        )
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise FileError(f"cannot write '{path}': no permission to write in the folder '{target.parent}'")
