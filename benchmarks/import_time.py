"""How long it takes until regraft can be used, beside torch: `python benchmarks/import_time.py`.

Each line is a process of its own, all in turn; numbers are medians over rounds of its processor time, which
on an idle machine is about the time on the wall. `above torch` subtracts `import torch` of the same round.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from typing import Any

from _common import options, write_figures

EVERY_NAME = "import torch, regraft; [getattr(regraft, name) for name in regraft.__all__]"
COMMAND = "import sys; from regraft.cli import main; main()"
JOBS: dict[str, list[str]] = {
    "python": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import regraft": ["-c", "import regraft"],
    "import torch, regraft, all its names": ["-c", EVERY_NAME],
    "regraft --version": ["-c", COMMAND, "--version"],
    "regraft --help": ["-c", COMMAND, "--help"],
    "regraft train --help": ["-c", COMMAND, "train", "--help"],
    "a TAB after `regraft train --evolve `": ["-c", COMMAND],
}
TAB = {"_REGRAFT_COMPLETE": "bash_complete", "COMP_WORDS": "regraft train --evolve ", "COMP_CWORD": "3"}


def seconds(name: str) -> float:
    """Processor time of one process."""
    environment = {**os.environ, **(TAB if "TAB" in name else {})}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *JOBS[name]], env=environment, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print a table, and write its figures where asked to."""
    parser = options(__doc__, rounds=11, threads=False)
    chosen = parser.parse_args()
    taken: dict[str, list[float]] = {name: [] for name in JOBS}
    for name in JOBS:
        seconds(name)  # files come into memory, the words of a TAB into their cache
    for _ in range(chosen.rounds):
        for name in JOBS:
            taken[name].append(seconds(name))
    figures: list[dict[str, Any]] = []
    print(f"{'':40}{'seconds':>10}{'above torch':>14}")
    for name, times in taken.items():
        above = statistics.median(t - torch for t, torch in zip(times, taken["import torch"], strict=True))
        figures.append({"job": name, "seconds": statistics.median(times), "above_torch": above})
        print(f"{name:40}{statistics.median(times):10.2f}{above:14.2f}")
    write_figures(chosen.json, figures)


if __name__ == "__main__":
    main()
