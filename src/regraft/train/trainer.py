"""``trainer``: a recipe as the training that pruning in rounds asks for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from regraft.data import Data
from regraft.prune import Train
from regraft.train.recipe import Recipe, train_recipe
from regraft.train.run import Callback


def trainer(
    recipe: Recipe, data: Data, *, device: torch.device | str = "cpu", callbacks: Iterable[Callback] = ()
) -> Train:
    """``(model, start, stop) -> test accuracy``: trains a network over these epochs of the recipe, in place.

    What the recipe says about the network itself (model, density, initial values) is not used. ``stop`` None
    stands for the recipe's last epoch. Training may go on beyond it; the learning rate's schedule then spans
    all epochs until ``stop``.

    >>> from regraft import data, models, prune
    >>> digits = data.load("digits", per_class=20)
    >>> def make_model():
    ...     return models.build("mlp:64-32-10", generator=torch.Generator().manual_seed(0))
    >>> train = trainer(Recipe(dense=True, epochs=3, batch_size=20, lr=0.1), digits)
    >>> ticket = prune.iterative(make_model, train, score="magnitude", density=0.2, rounds=2)
    >>> train(ticket.model, ticket.epoch, None) > 0.5
    True

    Raises:
        InputError: when called: no epoch is left to train, or training diverged.
        MismatchError: when called: the model does not fit the data.
    """
    chosen = tuple(callbacks)

    def train(model: nn.Module, start: int, stop: int | None) -> float:
        last = recipe.epochs if stop is None else stop
        longest = recipe if last <= recipe.epochs else replace(recipe, epochs=last)
        done = train_recipe(longest, data, model=model, span=(start, last), device=device, callbacks=chosen)
        return done.history.final["test_accuracy"]

    return train
