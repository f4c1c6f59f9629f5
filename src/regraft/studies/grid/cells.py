"""The one step of a grid: train a network as ``regraft train`` does."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from regraft import measure
from regraft.studies.grid.options import DATA
from regraft.studies.study import Outcome, Work, step
from regraft.train import Recipe, train_recipe

_TIMES = ("seconds", "evaluate_seconds")


@step
def train(work: Work) -> Outcome:
    """Train one network; a row of what it reached, and the metrics of each epoch.

    The configuration holds the options of ``regraft train`` by name; see ``config_of``.
    """
    config: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in work.config.items()}
    classes = config["classes"]
    data = work.data(
        config["data"],
        classes=None if classes is None else tuple(int(c) if c.isdecimal() else c for c in classes),
        per_class=config["per_class"],
        test_per_class=config["test_per_class"],
        seed=config["data_seed"],
    )
    names = {f.name for f in fields(Recipe)} - set(DATA)
    trained = train_recipe(Recipe(**{k: v for k, v in config.items() if k in names}), data)
    # times are left out: the same training gives the same rows
    epochs = [{k: v for k, v in e.items() if k not in _TIMES} for e in trained.history.epochs]
    found = measure.inspect(trained.model, data.input_shape)
    accuracies = trained.history.column("test_accuracy")
    row = {
        **{k: v for k, v in epochs[-1].items() if k in ("train_loss", "test_loss", "test_accuracy")},
        "best_accuracy": max(accuracies),
        "trained_epochs": len(epochs),
        "connections": found["weights"],
        "final_density": found["density"],
        "parameters": found["parameters"],
    }
    return Outcome(rows=[row], epochs=epochs)
