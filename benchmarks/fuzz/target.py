"""What is fuzzed: a maker of inputs from numbers, and a check that one input passes or fails."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft.errors import RegraftError

GROUPS = ("network files", "messages", "data files", "studies and exports", "texts", "arguments")


class Inconsistent(Exception):
    """An input was accepted, but what came out cannot be."""


def require(good: bool, what: str) -> None:
    """Raise ``Inconsistent`` unless it holds."""
    if not good:
        raise Inconsistent(what)


@dataclass(frozen=True)
class Target:
    """One door through which bytes, texts or tensors come in.

    Attributes:
        name: on the command line.
        group: one of ``GROUPS``.
        share: inputs of a million.
        make: the input, from a source of random numbers and from nothing else.
        check: reads the input; returns where it is accepted and what came out is consistent, raises one of
            ``refusals`` where it is refused. Anything else is a finding. It may write into the folder.
        refusals: what is raised on purpose.
    """

    name: str
    group: str
    share: int
    make: Callable[[random.Random], Any]
    check: Callable[[Any, Path], None]
    refusals: tuple[type[BaseException], ...] = (RegraftError,)


def source(seed: int, name: str, number: int) -> random.Random:
    """The random numbers of input ``number`` of a target: the same on every machine."""
    return random.Random(f"{seed}/{name}/{number}")


def size_of(case: Any) -> int:
    """Bytes of an input, as far as it is made of bytes and texts."""
    if isinstance(case, bytes | str):
        return len(case)
    if isinstance(case, tuple | list):
        return sum(size_of(part) for part in case)
    return 8
