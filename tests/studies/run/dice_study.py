"""A study of the tests' own: thrown dice, their sums, and cells that fail, die or write into a full disk."""

import errno
import os
import signal
import time
from pathlib import Path

import torch

from regraft.studies import Cell, Outcome, Preset, Study, step


@step
def throw(work):
    time.sleep(work.config["wait"])
    once = work.config.get("dies")
    if once is not None and not Path(once).exists():
        Path(once).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    # the global stream on purpose: no neighbour may change what a cell draws from it
    eyes = int(torch.randint(1, 7, ()))
    return Outcome(
        rows=[{"n": work.config["n"], "eyes": eyes}],
        epochs=[{"epoch": e, "eyes": float(torch.rand(()))} for e in (1, 2)],
        models={"die": torch.nn.Linear(2, 1)} if work.config["n"] % 5 == 0 else {},
    )


@step
def add(work):
    if work.config.get("fails"):
        raise ValueError("the dice fell from the table")
    if work.config.get("full"):
        raise OSError(errno.ENOSPC, "No space left on device")
    if work.config.get("always dies"):
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(rows=[{"sum": sum(r.rows[0].get("eyes", 0) for r in work.inputs)}])


def cells(settings):
    extra = {"dies": settings["dies"]} if "dies" in settings else {}
    thrown = [
        Cell(
            throw,
            {"n": n, "wait": settings.get("wait", 0.0), **(extra if n == settings["most"] // 2 else {})},
        )
        for n in range(settings["most"])
    ]
    for i in range(0, len(thrown), 5):
        yield Cell(add, {"from": i}, tuple(thrown[i : i + 5]))
    if "bad" in settings:
        bad = Cell(add, {settings["bad"]: True}, tuple(thrown[:2]))
        yield Cell(add, {"after": settings["bad"]}, (bad,))


STUDY = Study(
    "dice", "Thrown dice", "nothing", "Dice and their sums.", cells,
    {
        "smoke": Preset({"most": 20}, "1 s"),
        "small": Preset({"most": 120, "wait": 0.02}, "10 s"),
        "fails": Preset({"most": 20, "bad": "fails"}, "1 s"),
        "full": Preset({"most": 20, "bad": "full"}, "1 s"),
        "deadly": Preset({"most": 10, "bad": "always dies"}, "1 s"),
        "data": Preset({"most": 5}, "1 s", data=("fashion-mnist",)),
    },
)  # fmt: skip
