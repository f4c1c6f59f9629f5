"""Training several sparse networks that differ in their seed only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from regraft.data import Data
from regraft.topology import Topology
from regraft.train import History, Recipe, ShowProgress, train_recipe


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network: its name, how it was trained, and what happened."""

    name: str
    recipe: Recipe
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

    @property
    def topology(self) -> Topology:
        """Which connections it has."""
        return Topology.of(self.model)

    def figures(self) -> dict[str, Any]:
        """For JSON: what it reached, and its accuracy after each epoch."""
        return {
            "name": self.name,
            "seed": self.recipe.seed,
            "accuracy": self.accuracy,
            "loss": self.loss,
            "epochs": len(self.history.epochs),
            "connections": self.topology.nnz,
            "density": self.topology.density,
            "accuracy_by_epoch": self.history.column("test_accuracy"),
        }


def train_network(
    recipe: Recipe, data: Data, seed: int, advance: Callable[..., object] = lambda *_: None
) -> Network:
    """One network by ``recipe``, with another seed.

    Args:
        advance: called with (steps, note) as training goes on, for a progress bar.

    >>> from regraft import data
    >>> digits = data.load("digits", per_class=20)
    >>> recipe = Recipe("mlp:64-32-10", density=0.3, epochs=3, batch_size=20, lr=0.1)
    >>> network = train_network(recipe, digits, seed=1)
    >>> network.name, len(network.history.epochs), network.accuracy > 0.5
    ('seed 1', 3, True)

    Raises:
        InputError: an option that cannot be used, or training diverged.
        MismatchError: the model does not fit the data.
    """
    own = replace(recipe, seed=seed)
    trained = train_recipe(own, data, callbacks=[ShowProgress(advance)])
    return Network(f"seed {seed}", own, trained.model, trained.history)


def steps_of(recipe: Recipe, data: Data) -> int:
    """Optimizer steps of a whole training."""
    return recipe.epochs * -(-len(data.train) // (recipe.batch_size or len(data.train)))
