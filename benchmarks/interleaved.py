"""Timings of several jobs in turn, so that a disturbance hits all of them alike.

With one thread the clock is the processor time of the process: on an idle machine that is the time on the
wall, and on a shared machine it leaves out the time that other processes run. With more threads the clock is
the wall's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch


class Timing(NamedTuple):
    """Seconds of one call: median and quartiles over rounds; and the same of its ratio to the baseline, taken
    round by round (above 1: faster than the baseline)."""

    median: float
    low: float
    high: float
    speedup: float
    speedup_low: float
    speedup_high: float


def timings(
    jobs: Mapping[str, Callable[[], object]], baseline: str, *, rounds: int = 30, seconds: float = 2e-3
) -> dict[str, Timing]:
    """Each job, in every round, as often as fits ``seconds`` (once at least)."""
    return summary(measured(jobs, rounds=rounds, seconds=seconds), baseline)


def measured(
    jobs: Mapping[str, Callable[[], object]], *, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Seconds of one call of each job, round by round."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    calls = {}
    for name, job in jobs.items():
        job()  # first call: allocations, caches, thread pools
        start = clock()
        for _ in range(3):
            job()
        calls[name] = max(1, int(3 * seconds / max(clock() - start, 1e-7)))
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            start = clock()
            for _ in range(calls[name]):
                job()
            taken[name].append((clock() - start) / calls[name])
    return taken


def summary(taken: Mapping[str, list[float]], baseline: str) -> dict[str, Timing]:
    """Medians and quartiles of the times, and of their ratios to the baseline."""
    made = {}
    for name, times in taken.items():
        ratios = [b / t for b, t in zip(taken[baseline], times, strict=True)]
        low, middle, high = statistics.quantiles(times, n=4)
        slower, typical, faster = statistics.quantiles(ratios, n=4)
        made[name] = Timing(middle, low, high, typical, slower, faster)
    return made
