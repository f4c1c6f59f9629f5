"""Scales of the pruning studies: the same cells, on digits, on MNIST with few epochs, and as in thesis 5."""

from __future__ import annotations

from typing import Any

from regraft.studies.papers.pruning.published import DENSITIES

Grid = list[list[Any]]

SMOKE: dict[str, Any] = {
    "data": "digits", "per_class": 20, "test_per_class": 10, "model": "mlp:in-24-16-classes", "epochs": 2,
    "patience": None, "lr": 0.1, "batch_size": 20, "samples": 50, "shots": 4, "shots_in_rounds": 2,
    "rounds": 2, "grid": [[0.1, [0, 1]], [0.5, [0]]],
}  # fmt: skip

SMALL: dict[str, Any] = {
    "data": "mnist", "per_class": None, "test_per_class": None, "model": "lenet-300-100", "epochs": 10,
    "patience": None, "lr": 0.1, "batch_size": 64, "samples": 100, "shots": 100, "shots_in_rounds": 10,
    "rounds": 3, "grid": [[0.005, [0, 1]]],
}  # fmt: skip
"""Ten epochs instead of up to a hundred: at .5 %, where it matters most, accuracies rise by half a point
between epoch 10 and 20 and by another between 20 and 100."""

PAPER: dict[str, Any] = {
    **SMALL,
    "epochs": 100,
    "patience": 5,  # not published; whole networks then stop after the thesis's 14 epochs or so
    "rounds": 10,  # not published either
    "grid": [[density, [0, 1, 2]] for density in DENSITIES],
}
"""The thesis's training: up to 100 epochs with early stopping, three runs."""

DIFFERS = (
    "The thesis names neither the patience of its early stopping, nor the number of its rounds, nor the "
    "shots of its multi-shot schedules; here 5 epochs, 10 rounds (small: 3), 100 shots before training and "
    "10 in each round.",
    "Preset small trains for 10 epochs where the thesis trains for up to 100 with early stopping.",
    "Where a pruning has several shots, SNIP scores all weights again in each, so that what was cut may come "
    "back, as in the code base that the thesis builds on.",
)
