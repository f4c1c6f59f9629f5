"""Twenty kills at random moments of a study, and whether its table is that of an undisturbed run.

    python benchmarks/study_kills.py [--kills 20] [--seed 0]

Each kill is a SIGKILL of the runner or of one of its workers, after a random number of cells and a random
time; a killed runner is started again with the same command. The study throws dice in 2,400 cells of 50 ms
that keep rows, epochs and networks, and adds up the eyes in 600 more.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from regraft.studies import Cell, Outcome, Preset, Study, Work, own, step
from regraft.studies.run import Folder, run
from regraft.studies.tables import table

ROWS = 2400


@step
def throw(work: Work) -> Outcome:
    time.sleep(0.05)
    eyes = int(torch.randint(1, 7, ()))
    return Outcome([{"eyes": eyes}], [{"epoch": 1, "eyes": eyes}], {"die": torch.nn.Linear(3, 3)})


@step
def add(work: Work) -> Outcome:
    return Outcome([{"sum": sum(r.rows[0]["eyes"] for r in work.inputs)}])


def cells(settings: object) -> list[Cell]:
    thrown = [Cell(throw, {"n": n}) for n in range(ROWS)]
    return [Cell(add, {"from": i}, tuple(thrown[i : i + 4])) for i in range(0, ROWS, 4)]


PLACE = f"{__file__}:STUDY"
STUDY = Study("kills", "Killed", "nothing", "Dice.", cells, {"small": Preset({}, "1 min")})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as place:
        killed = Path(place) / "killed"
        process, kills, runs = start(killed), 0, 1
        while kills < options.kills:
            goal = cells_in(killed) + draw.randrange(10, 100)
            while process.poll() is None and cells_in(killed) < goal:
                time.sleep(0.02)
            time.sleep(draw.uniform(0.0, 0.1))
            if process.poll() is not None:
                print(f"the study ended after {kills} kills: more cells than that are needed")
                break
            workers = children_of(process.pid)
            if kills % 2 == 0 or not workers:
                process.kill()
                process.wait()
                process, runs = start(killed), runs + 1
                victim = "runner"
            else:
                os.kill(draw.choice(workers), signal.SIGKILL)
                victim = "worker"
            kills += 1
            print(f"kill {kills}: {victim}", flush=True)
        if process.wait() != 0:
            process = start(killed)
            assert process.wait() == 0
        run(own.find(PLACE), "small", Path(place) / "whole", executor="pool")
        same = digest(killed) == digest(Path(place) / "whole")
        print(
            f"{kills} kills, {runs} runs, {ROWS + ROWS // 4} cells: "
            f"the tables are {'equal' if same else 'DIFFERENT'}"
        )
    sys.exit(0 if same else 1)


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "regraft", "study", "run", PLACE, "--workers", "2"]
    return subprocess.Popen(
        [*command, "--folder", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def cells_in(folder: Path) -> int:
    return len(list(folder.glob("cells/*/*")))


def children_of(pid: int) -> list[int]:
    """All processes below this one, from /proc."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {pid})


def digest(folder: Path) -> str:
    """Rows, epochs and networks of all cells in the study's order."""
    found = table(own.find(PLACE), "small", Folder(folder))
    total = hashlib.sha256(repr((found.rows, [r.epochs for r in found.results])).encode())
    for result in found.results:
        for file in sorted(result.folder.glob("*.safetensors")):
            total.update(file.read_bytes())
    assert found.missing == 0
    return total.hexdigest()


if __name__ == "__main__":
    main()
