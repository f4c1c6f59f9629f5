"""Training several sparse networks that differ in their seed only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from regraft import evolve, layers, models
from regraft.data import Data
from regraft.train import Callback, History, StopAfterAccuracy, fit, rate_by_name, schedule_by_name, seeds


@dataclass(frozen=True)
class Recipe:
    """How one sparse network is made and trained.

    Attributes:
        model: short name, as ``models.build`` takes it.
        density: share of all connections that exist, in (0, 1].
        epochs: epochs at most.
        batch_size: samples per step; at least the number of samples for full batches.
        allocate: how the density is spread over the layers.
        activation: between the layers.
        lr, momentum, schedule: of SGD; the schedule is stepped once per epoch.
        evolve: evolution method, as ``evolve.method`` takes it.
        rate: its rate, as ``NAME`` or ``NAME:KEY=VALUE,...``.
        every: epochs between two changes of topology.
        stop: (threshold, epochs): stop so many epochs after the test accuracy first exceeds the threshold.
    """

    model: str
    density: float
    epochs: int
    batch_size: int = 100
    allocate: str = "erdos-renyi"
    activation: str = "relu"
    lr: float = 0.1
    momentum: float = 0.9
    schedule: str = "cosine"
    evolve: str = "set"
    rate: str = "constant"
    every: int = 1
    stop: tuple[float, int] | None = None


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network, the seed it came from and what happened."""

    name: str
    seed: int
    model: nn.Module
    history: History

    @property
    def accuracy(self) -> float:
        """Test accuracy after the last epoch, in [0, 1]."""
        return self.history.final["test_accuracy"]

    @property
    def loss(self) -> float:
        """Test loss after the last epoch."""
        return self.history.final["test_loss"]


def train(recipe: Recipe, data: Data, seed: int, callbacks: Iterable[Callback] = ()) -> Trained:
    """One network by ``recipe``; all random choices follow ``seed``.

    The values that remain are scaled up to the variance of the dense layer's sums (``init="rescale"``):
    without it, deep sigmoid networks at high sparsity start with no signal at all.

    >>> from regraft import data
    >>> digits = data.load("digits", per_class=20)
    >>> trained = train(Recipe("mlp:64-32-10", density=0.3, epochs=3, batch_size=20), digits, seed=1)
    >>> trained.name, len(trained.history.epochs), trained.accuracy > 0.5
    ('seed 1', 3, True)

    Raises:
        InputError: an option that is unknown or out of range.
        MismatchError: the model does not fit the data.
    """
    model = models.build(
        recipe.model,
        input_shape=data.input_shape,
        classes=data.classes,
        activation=recipe.activation,
        generator=seeds.stream(seed, "init"),
    )
    layers.sparsify(
        model,
        recipe.density,
        allocate=recipe.allocate,
        init="rescale",
        generator=seeds.stream(seed, "topology"),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.lr, momentum=recipe.momentum)
    steps = -(-len(data.train) // recipe.batch_size)
    evolver = evolve.method(
        recipe.evolve,
        rate=rate_by_name(recipe.rate),
        every=recipe.every * steps,
        total=recipe.epochs * steps,
        generator=seeds.stream(seed, "evolve"),
    ).attach(model, optimizer)
    stop = [] if recipe.stop is None else [StopAfterAccuracy(*recipe.stop)]
    history = fit(
        model,
        data,
        epochs=recipe.epochs,
        optimizer=optimizer,
        scheduler=schedule_by_name(recipe.schedule, optimizer, recipe.epochs),
        batch_size=recipe.batch_size,
        evolver=evolver,
        callbacks=[*stop, *callbacks],
        seed=seed,
    )
    return Trained(f"seed {seed}", seed, model, history)
