"""Where data sets lie, and the sentence that says they do not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from regraft.errors import FileError, RegraftError


def data_dir(path: str | os.PathLike[str] | None = None) -> Path:
    """The folder with data sets: ``path``, else the variable REGRAFT_DATA, else ``~/.cache/regraft``.

    >>> data_dir("sets").name
    'sets'
    """
    chosen = path if path is not None else os.environ.get("REGRAFT_DATA") or "~/.cache/regraft"
    return Path(chosen).expanduser()


def first_folder(folders: Sequence[Path], needed: Sequence[Sequence[str]]) -> Path | None:
    """The first of ``folders`` that has, for each entry of ``needed``, a file of one of those names."""
    for folder in folders:
        if all(any((folder / name).is_file() for name in names) for names in needed):
            return folder
    return None


def one_of(folder: Path, names: Sequence[str]) -> Path:
    """The first of ``names`` that exists in ``folder``.

    Raises:
        FileError: none does.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileError(f"no file {' or '.join(repr(n) for n in names)} in '{folder}'")


def missing(title: str, folders: Sequence[Path], files: str, home: str, downloadable: bool) -> FileError:
    """The error for a set whose files are nowhere: where they were looked for and how to get them."""
    places = " or ".join(f"'{f}'" for f in dict.fromkeys(folders))
    remedy = (
        f"get them from {home} and put them there, or name the folder above with data_dir or REGRAFT_DATA"
    )
    if downloadable:
        remedy += ", or pass download=True where there is a network"
    return FileError(f"no {title} here: expected {files} in {places}; {remedy}")


FREE, FACTOR = 2**26, 100


def most_unpacked(packed: int, free: int = FREE) -> int:
    """Bytes that ``packed`` compressed bytes may become: enough for any data, too few for a bomb, which grows
    a thousandfold.

    >>> most_unpacked(10**6)
    167108864
    """
    return free + FACTOR * packed


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a foreign reader raises on a bad file into one sentence that names the file.

    Readers of old formats (SciPy's, Pillow's, pickle's) raise almost anything on corrupt bytes, so
    all exceptions are taken; ours pass unchanged.

    Raises:
        FileError: the body raised anything else.
    """
    try:
        yield
    except RegraftError:
        raise
    except FileNotFoundError as error:
        raise FileError(f"there is no file '{path}': expected {what}") from error
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise FileError(
            f"cannot read '{path}' as {what} ({reason}): it is corrupt, truncated or of another format; "
            "fetch it again"
        ) from error
