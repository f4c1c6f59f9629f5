"""``partial_fit``: training that goes on with samples as they come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from regraft import evolve
from regraft.data import Data
from regraft.evolve import METHODS, Evolve
from regraft.schedules import Constant, Progress
from regraft.train import History, Recipe, build_model, evolving, fit, optimizer_by_name, seeds

EVERY = 100
"""Steps between changes of the topology by methods that otherwise count epochs."""


@dataclass(frozen=True)
class Stream:
    """What goes from one call to the next besides the network.

    Attributes:
        seed: of everything that is drawn.
        lr: learning rate.
        calls: passes so far.
        optimizer, evolver: their states; None before the first pass.
    """

    seed: int
    lr: float
    calls: int = 0
    optimizer: dict[str, Any] | None = None
    evolver: dict[str, Any] | None = None


def go_on(
    before: Stream, recipe: Recipe, data: Data, module: nn.Module | None, device: torch.device
) -> tuple[nn.Module, History, Stream]:
    """One pass over the samples: (the network, what happened, what to go on from).

    Where a stream ends is not known, so the learning rate stays as it is and the evolution rate where its
    schedule begins.

    Args:
        recipe: of the network, the optimizer and the evolution.
        module: trained in place; None for a new one.
        device: where it trains; then all of it comes back to the CPU.
    """
    module = (build_model(recipe, data) if module is None else module).to(device)
    assert recipe.lr is not None
    assert recipe.momentum is not None
    assert recipe.batch_size is not None
    optimizer = optimizer_by_name(
        recipe.optimizer, module.parameters(),
        lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay,
    )  # fmt: skip
    evolver = _evolver(recipe)
    if evolver is not None:
        evolver.attach(module, optimizer)
    if before.optimizer is not None:
        optimizer.load_state_dict(before.optimizer)
    if before.evolver is not None and evolver is not None:
        evolver.load_state_dict(before.evolver)
    history = fit(
        module, data, epochs=1, optimizer=optimizer, loss=recipe.loss, batch_size=recipe.batch_size,
        evolver=evolver, seed=seeds.derived(before.seed, f"call {before.calls}"),
    )  # fmt: skip
    state = None if evolver is None else evolver.state_dict()
    kept = tree_map_only(Tensor, Tensor.cpu, (optimizer.state_dict(), state))
    return module.cpu(), history, Stream(before.seed, before.lr, before.calls + 1, *kept)


def _evolver(recipe: Recipe) -> Evolve | None:
    if recipe.evolution == "none":
        return None
    own = METHODS[recipe.evolution]
    schedule = evolving.rate_of(recipe) or own.rate
    return evolve.method(
        recipe.evolution,
        rate=Constant(schedule(Progress(0, 1))),
        every=int(own.every) if own.every.isdecimal() else EVERY,
        generator=seeds.stream(recipe.seed, "evolve"),
    )
