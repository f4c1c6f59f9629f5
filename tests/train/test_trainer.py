"""A recipe as the training of pruning in rounds."""

from __future__ import annotations

import copy

import pytest
import torch

from regraft import models, prune
from regraft.data import load
from regraft.errors import InputError
from regraft.train import Recipe, train_recipe, trainer


def make() -> torch.nn.Module:
    return models.build("mlp:64-16-10", generator=torch.Generator().manual_seed(0))


def test_it_trains_as_the_recipe_does() -> None:
    digits = load("digits", per_class=10)
    recipe = Recipe(dense=True, epochs=3, batch_size=10, lr=0.1)
    model, other = make(), make()
    accuracy = trainer(recipe, digits)(model, 0, None)
    history = train_recipe(recipe, digits, model=other).history
    assert accuracy == history.final["test_accuracy"]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_it_starts_late_ends_early_and_goes_on_beyond_the_last_epoch() -> None:
    digits = load("digits", per_class=10)
    train = trainer(Recipe(dense=True, epochs=4, batch_size=10, lr=0.1, lr_schedule="linear"), digits)
    first, again = make(), make()
    train(first, 0, 2)
    train(again, 0, 2)
    assert torch.equal(first.fc1.weight, again.fc1.weight)
    late = copy.deepcopy(first)
    train(late, 2, None)
    train(again, 2, None)
    assert torch.equal(late.fc1.weight, again.fc1.weight)
    assert not torch.equal(late.fc1.weight, first.fc1.weight)
    train(late, 4, 6)
    with pytest.raises(InputError, match="must go forward"):
        train(late, 4, None)


def test_imp_through_a_recipe_rewinds_to_its_early_epoch() -> None:
    digits = load("digits", per_class=10)
    train = trainer(Recipe(dense=True, epochs=3, batch_size=10, lr=0.1), digits)
    ticket = prune.iterative(make, train, score="magnitude", density=0.2, rounds=2, rewind_to=1)
    early = make()
    train(early, 0, 1)
    kept = ticket.topology["fc1.weight"].index
    assert ticket.epoch == 1
    assert torch.equal(ticket.model.fc1.weight.values, early.fc1.weight.flatten()[kept])
    assert [round(r.density, 2) for r in ticket.history] == [0.45, 0.2]
    assert train(ticket.model, ticket.epoch, None) > 0.5
