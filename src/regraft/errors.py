"""The one family of exceptions that regraft raises on purpose.

Every message names the value, says what was expected and what to do. The command line prints such a
message as one sentence and ends with exit code 2; anything else is a bug of regraft and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 2000
"""Characters of an error's message; a longer one loses its middle."""


def visible(text: str) -> str:
    r"""A text as a terminal may show it: what would steer it, and half characters, are written out.

    Names and values that stand in files may hold anything.

    >>> visible("the tensor 'a\x1b[2J'")
    "the tensor 'a\\x1b[2J'"
    """
    if text.isprintable():
        return text
    kept = (c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
    return "".join(kept)


class RegraftError(Exception):
    """Base of all errors that regraft raises on purpose.

    >>> try:
    ...     check_density(5)
    ... except RegraftError as error:
    ...     print(error)
    density is 5, but must be in (0, 1]: 0.05 keeps 5 % of the weights
    """

    def __str__(self) -> str:
        text = super().__str__()
        if len(text) > LONGEST:
            text = f"{text[: LONGEST // 2]} [...] {text[-LONGEST // 4 :]}"
        return visible(text)


class InputError(RegraftError, ValueError):
    """A value that a caller passed cannot be used."""


class FileError(RegraftError, OSError):
    """A file is missing, not ours, truncated, corrupt, or of a newer format."""


class MismatchError(RegraftError, ValueError):
    """Networks, layers or shapes that should agree do not."""


class MissingDependency(RegraftError, ImportError):
    """A feature needs a package that is not installed."""

    def __init__(self, package: str, extra: str, feature: str) -> None:
        super().__init__(
            f"{feature} needs the package '{package}', which is not installed: "
            f"run `pip install 'regraft[{extra}]'`"
        )


def suggest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the nearest known ones, else the whole list.

    >>> suggest("magnitud", ["magnitude", "average"])
    "did you mean 'magnitude'?"
    >>> suggest("qqq", ["magnitude", "average"])
    "known names: 'average', 'magnitude'"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(repr(n) for n in near)}?"
    return "known names: " + ", ".join(repr(n) for n in names)


def unknown(kind: str, name: object, known: Iterable[str]) -> InputError:
    """The error for an unknown name of a family member, with the nearest known names.

    >>> str(unknown("weight rule", "magnitud", ["magnitude", "average"]))
    "unknown weight rule 'magnitud': did you mean 'magnitude'?"
    """
    return InputError(f"unknown {kind} {name!r}: {suggest(str(name), known)}")


def check_density(density: float, name: str = "density") -> float:
    """``density`` as a float in (0, 1], else an error.

    >>> check_density(0.05)
    0.05
    >>> check_density(1.5)
    Traceback (most recent call last):
    ...
    regraft.errors.InputError: density is 1.5, but must be in (0, 1]: 0.05 keeps 5 % of the weights
    """
    try:
        value = float(density)
    except (TypeError, ValueError):
        value = float("nan")
    if not 0.0 < value <= 1.0:
        raise InputError(f"{name} is {density!r}, but must be in (0, 1]: 0.05 keeps 5 % of the weights")
    return value
