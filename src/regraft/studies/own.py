"""Studies in files of the user's own: a Python file with a ``Study`` value, or a YAML grid.

A Python file is loaded under a module name made of its stem and a hash of its absolute path, so that two
files of one stem can be loaded at once. Other processes find its steps again by that path.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from regraft.errors import FileError, InputError, suggest
from regraft.studies.study import OWN, Step, Study

PYTHON, YAML = (".py",), (".yaml", ".yml")
_READ: dict[str, tuple[Path, bytes]] = {}
"""Name of each module that was loaded here, to its file and what stood in it."""


def is_path(text: str) -> bool:
    """Whether this names a file with studies rather than a study.

    >>> is_path("mine.py"), is_path("runs/grid.yaml"), is_path("mine.py:SMALL"), is_path("gates-sine")
    (True, True, True, False)
    """
    return _split(text)[0].suffix in (*PYTHON, *YAML)


def find(text: str) -> Study:
    """The study in a file; ``file.py:NAME`` chooses one of several, by its variable or its own name.

    Raises:
        FileError: the file is missing or cannot be read.
        InputError: the file is broken (with the line), holds no study, or several and none is chosen.
    """
    path, wanted = _split(text)
    if path.suffix in YAML:
        from regraft.studies.grid import read_grid  # needs torch, as no other study here does

        return read_grid(path)
    found = _studies(_module(path))
    if not found:
        raise InputError(
            f"'{path}' holds no study: it needs a value such as `STUDY = Study(name=..., cells=..., ...)` at "
            "its top level (from regraft.studies import Study)"
        )
    if wanted is not None:
        chosen = [s for name, s in found.items() if wanted in (name, s.name)]
        if not chosen:
            known = [*found, *(s.name for s in found.values())]
            raise InputError(f"'{path}' holds no study {wanted!r}: {suggest(wanted, known)}")
        return chosen[0]
    if len(found) > 1:
        raise InputError(
            f"'{path}' holds {len(found)} studies: choose one, such as {path}:{next(iter(found))} "
            f"(there are {', '.join(found)})"
        )
    return next(iter(found.values()))


def load(path: str | Path) -> list[Study]:
    """All studies of a file, in the order in which they stand there.

    Raises:
        FileError: the file is missing or cannot be read.
        InputError: the file is broken; the message names the line.
    """
    path = Path(path)
    if path.suffix in YAML:
        return [find(str(path))]
    return list(_studies(_module(path)).values())


def source(step: Step) -> str | None:
    """The file from which another process must load a step; None where it can import the step's module.

    >>> from regraft.studies.study import Outcome
    >>> source(Step(Outcome))
    """
    module = sys.modules.get(step.run.__module__)
    file = getattr(module, "__file__", None)
    if module is None or file is None:
        return None
    path = Path(file).resolve()
    beside = {own.parent for own, _ in _READ.values()}
    if module.__name__ == "__main__" or module.__name__.startswith(f"{OWN}.") or path.parent in beside:
        return str(path)
    return None


@functools.lru_cache(maxsize=256)
def resolve_step(module: str, qualname: str, path: str | None = None) -> Step:
    """A step by its ``place`` and its ``source``, in any process; the file may be a copy that lies elsewhere.

    Raises:
        FileError: the file is missing on this machine.
        InputError: the file or module is broken, or holds no such step.
    """
    where = f"'{path}'" if path else f"the module '{module}'"
    found: object = _import(module, path)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Step):
        raise InputError(
            f"{where} has no step '{qualname}' at its top level: define it there with @step, under the name "
            "of its function"
        )
    return found


def _import(module: str, path: str | None) -> ModuleType:
    if module in sys.modules and (path is None or not module.startswith(f"{OWN}.")):
        loaded = sys.modules[module]
        if path is None or getattr(loaded, "__file__", None) == path:
            return loaded
    if path is not None and module == "__main__":
        return _module(Path(path))
    if path is not None and module.startswith(f"{OWN}."):
        return _module(Path(path), module)
    if path is not None:  # a module that lies beside the user's file
        _let_import_from(Path(path).parent)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"cannot import the module '{module}' of a step ({error}): install it here too"
        ) from error


def _split(text: str) -> tuple[Path, str | None]:
    before, colon, name = text.rpartition(":")
    if colon and Path(before).suffix in PYTHON:
        return Path(before), name
    return Path(text), None


def _studies(module: ModuleType) -> dict[str, Study]:
    found: dict[str, Study] = {}
    for name, value in vars(module).items():
        members = value if isinstance(value, list | tuple) else [value]
        for member in members:
            if isinstance(member, Study) and all(member is not s for s in found.values()):
                found[name if member is value else member.name] = member
    return found


def _module(path: Path, name: str | None = None) -> ModuleType:
    """The file as a module, loaded again only where it has changed."""
    path = path.resolve()
    try:
        text = path.read_bytes()
    except OSError as error:
        raise FileError(f"cannot read '{path}': {error.strerror}; check the path of the study") from error
    name = name or module_name(path)
    if name in sys.modules and name in _READ and _READ[name][1] == text:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise FileError(f"'{path}' cannot be loaded as Python: name a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    _let_import_from(path.parent)
    sys.modules[name] = module  # before it runs, so that dataclasses in it find their module
    try:
        # compiled here rather than by the loader: a cached .pyc may be older than an edit of the same second
        exec(compile(text, str(path), "exec"), vars(module))  # noqa: S102
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise InputError(_told(path, error)) from error
    _READ[name] = (path, text)
    return module


def module_name(path: Path) -> str:
    """The name under which a file is loaded.

    >>> module_name(Path("/a/my-study.py")) == module_name(Path("/b/my-study.py"))
    False
    >>> module_name(Path("/a/my-study.py")).startswith("regraft_own_study.my_study_")
    True
    """
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    stem = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    return f"{OWN}.{stem}_{digest}"


def _let_import_from(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # last: files beside the study must not hide installed packages


def _told(path: Path, error: BaseException) -> str:
    """What is wrong with a file, and in which line."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"cannot read the study in '{path}', line {error.lineno}: {error.msg}; correct it there"
    frames: Sequence[traceback.FrameSummary] = traceback.extract_tb(error.__traceback__)
    line = next((f.lineno for f in reversed(frames) if f.filename == str(path)), None)
    told = (
        "it ends the program (SystemExit)"
        if isinstance(error, SystemExit)
        else f"{type(error).__name__}: {error}"
    )
    at = "" if line is None else f", line {line}"
    return f"cannot read the study in '{path}'{at}: {told}; correct it there"
