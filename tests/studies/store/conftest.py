"""A folder of results of a small study, done without a runner."""

import pytest

from regraft.studies import Cell, Outcome, Preset, Study, step
from regraft.studies.folder import Folder
from regraft.studies.run import run as run_study


@step
def train(work):
    seed = work.config["seed"]
    epochs = [
        {"epoch": e, "run": "a", "test_accuracy": 0.5 + 0.1 * e + 0.01 * seed, "lr": 0.1} for e in range(1, 4)
    ]
    return Outcome(rows=[{"accuracy": 0.8 + 0.01 * seed, "sparse": seed > 0}], epochs=epochs)


@step
def merge(work):
    rows = [
        {"rule": rule, "accuracy": 0.7 + 0.1 * i, "n": 2} for i, rule in enumerate(["average", "magnitude"])
    ]
    return Outcome(rows=rows)


def cells(settings):
    trained = [Cell(train, {"seed": s, "recipe": {"lr": 0.1}}) for s in range(settings["seeds"])]
    return [*trained, Cell(merge, {"density": 0.5}, tuple(trained))]


PRESETS = {"smoke": Preset({"seeds": 2}, "1 s"), "small": Preset({"seeds": 3}, "1 s")}


@pytest.fixture
def study():
    return Study("merged-pairs", "Pairs", "nothing", "A study.", cells, PRESETS)


@pytest.fixture
def folder(tmp_path, study):
    made = Folder(tmp_path / "results", create=True)
    run_study(study, "smoke", made, executor="inline")
    return made
