"""One input tried: what came of it, how long it took, how much memory it needed."""

from __future__ import annotations

import os
import resource
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .target import Inconsistent, Target, size_of

FREE = 128 * 2**20
FACTOR = 100
"""Memory that an input may need: ``FREE`` + ``FACTOR`` times its own bytes."""
LONGEST = 5000


class Hang(BaseException):
    """The input took more processor time than one may; no ``except Exception`` stops it."""


@dataclass(frozen=True)
class Outcome:
    """What came of an input.

    Attributes:
        status: ``"accepted"`` or ``"refused"``, both right; else what is wrong: ``"crash"`` (an error that is
            not one of regraft's), ``"inconsistent"``, ``"hang"``, ``"memory"``, ``"message"`` (a refusal that
            cannot be shown).
        where: the innermost line of regraft, and the kind of error: equal for equal faults.
        detail: the traceback.
        seconds: processor time.
        memory: by how many bytes the process grew at most.
    """

    status: str
    where: str = ""
    detail: str = ""
    seconds: float = 0.0
    memory: int = 0

    @property
    def good(self) -> bool:
        """Whether nothing is to be corrected."""
        return self.status in ("accepted", "refused")


@contextmanager
def alarmed() -> Iterator[None]:
    """Processor time that runs out raises ``Hang``."""

    def ring(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGPROF, ring)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class Peak:
    """By how much an input raised the memory of the process.

    Linux keeps the largest size of a process; it is asked after each input, and set back after one that
    raised it, so that it is never far above the present size.
    """

    def __init__(self) -> None:
        self._before = self._reset()

    def _reset(self) -> int:
        try:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
        except OSError:
            pass
        return self._now()

    @staticmethod
    def _now() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def grown(self) -> int:
        """Bytes since the last call."""
        grown = self._now() - self._before
        if grown > 2**20:
            self._before = self._reset()
        return grown


def limit_memory(more: int) -> None:
    """Let this process take no more than ``more`` bytes of addresses beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def attempt(target: Target, case: Any, folder: Path, peak: Peak, seconds: float) -> Outcome:
    """Give one input to its target; only within ``alarmed``."""
    status, error = "accepted", None  # type: str, BaseException | None
    peak.grown()  # what making it took does not count
    start = time.process_time()
    try:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            target.check(case, folder)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except Hang as hang:
        status, error = "hang", hang
    except Inconsistent as wrong:
        status, error = "inconsistent", wrong
    except target.refusals as refusal:
        status, error = "refused", refusal
        if _for_memory(refusal):
            status = "memory"
        elif not _can_be_shown(refusal):
            status = "message"
    except BaseException as crash:
        status, error = ("memory" if _for_memory(crash) else "crash"), crash
    took, grown = time.process_time() - start, peak.grown()
    where = detail = ""
    if status not in ("accepted", "refused"):
        assert error is not None
        where, detail = _where(error), "".join(traceback.format_exception(error, limit=-12))[-6000:]
    elif grown > FREE + FACTOR * size_of(case):
        status, where = "memory", "grew"
        detail = f"{grown >> 20} MiB for an input of {size_of(case):,} bytes"
    return Outcome(status, where, detail, took, grown)


def _for_memory(error: BaseException) -> bool:
    """Whether memory ran out at the bottom of it."""
    known: BaseException | None = error
    for _ in range(10):
        if known is None:
            return False
        if isinstance(known, MemoryError) or "allocate memory" in str(known):
            return True
        known = known.__cause__ or known.__context__
    return False


def _can_be_shown(error: BaseException) -> bool:
    """A terminal can show it: not endless, no lone surrogates, nothing that steers the terminal."""
    text = str(error)
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return 0 < len(text) <= LONGEST and all(c.isprintable() or c in "\n\t\xa0" or ord(c) > 160 for c in text)


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/regraft/" in f.filename]
    if isinstance(error, Inconsistent) or not ours:
        return f"{type(error).__name__}: {str(error)[:60]}"
    return f"{type(error).__name__} at {ours[-1].filename.rpartition('/regraft/')[2]}:{ours[-1].lineno}"
