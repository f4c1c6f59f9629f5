"""What ``regraft prune`` does once its options are read: make the network, prune it, train the ticket on."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regraft import checkpoint, data, diagnose, losses, measure, prune
from regraft.cli.common import progress_bar
from regraft.cli.prune_options import FIELDS, Plan
from regraft.data import Data
from regraft.errors import FileError, InputError, MismatchError
from regraft.files import atomic_write
from regraft.probe import Probe
from regraft.prune import Ticket
from regraft.topology import Topology
from regraft.train import Recipe, ShowProgress, Trained, build_model, seeds, train_recipe, trainer


@dataclass(frozen=True, eq=False)
class Job:
    """One pruning.

    Attributes:
        start: file of the network; None for a new one.
        folder: where rounds are kept; None for nowhere.
    """

    plan: Plan
    recipe: Recipe
    data: Data
    start: Path | None
    device: torch.device
    folder: Path | None

    def make_model(self) -> nn.Module:
        """The network to prune, the same at each call.

        Raises:
            FileError: the file cannot be read.
            MismatchError: the network does not fit the data.
        """
        model = build_model(self.recipe, self.data) if self.start is None else checkpoint.load(self.start)
        model = model.to(self.device)
        if self.start is not None:
            with measure.evaluating(model), torch.no_grad():
                measure.forward_checked(model, self.data.train.x[:1], self.data.train.highest)
        for name in self.plan.inits:
            prune.initialise(
                model, name, replace(self.probe, generator=self._stream("scores")), include=self.plan.include,
                exclude=self.plan.exclude, generator=self._stream(f"init {name}"),
            )  # fmt: skip
        return model

    @cached_property
    def probe(self) -> Probe:
        """Loss and samples for the scores.

        Raises:
            InputError: a class with too few samples.
        """
        loss = losses.by_name(self.recipe.loss, self.recipe.label_smoothing)
        return Probe(loss, [self._batch()], input_shape=self.data.input_shape)

    def _batch(self) -> tuple[Tensor, Tensor]:
        part, generator = self.data.train, self._stream("samples")
        if self.plan.balanced:
            classes = sum(count > 0 for count in part.counts())
            x, y = data.balanced_batch(part, max(1, self.plan.samples // classes), generator)
            return x, y
        order = torch.randperm(len(part), generator=generator)[: self.plan.samples]
        return part[order.to(part.device)]

    def _stream(self, purpose: str) -> torch.Generator:
        return seeds.stream(self.recipe.seed, purpose)

    def run(self) -> Ticket:
        """Prune as the plan says."""
        return self._in_rounds() if self.plan.rounds is not None else self._upfront()

    def _upfront(self) -> Ticket:
        model = self.make_model()
        if self.plan.score == FIELDS:
            topology = prune.receptive_fields(
                model, self.probe, density=self.plan.density, include=self.plan.include,
                exclude=self.plan.exclude, generator=self._stream("prune"),
            )  # fmt: skip
            return Ticket(prune.apply(model, topology), topology, (), 0)
        with progress_bar("pruning", self.plan.shots) as advance:
            topology = prune.upfront(
                model, self.probe, **self.plan.shared, generator=self._stream("prune"),
                on_shot=lambda shot: advance(1, f"density {shot.density:.4g}"),
            )  # fmt: skip
        return Ticket(prune.apply(model, topology), topology, (), 0)

    def _in_rounds(self) -> Ticket:
        plan, recipe = self.plan, self.recipe
        assert plan.rounds is not None
        with progress_bar("training and pruning", self._steps(plan.rounds)) as advance:
            return prune.iterative(
                self.make_model,
                trainer(recipe, self.data, device=self.device, callbacks=[ShowProgress(advance)]),
                self.probe,
                **plan.shared,
                rounds=plan.rounds,
                rewind_to=plan.rewind,
                epochs=plan.round_epochs,
                generator=self._stream("prune"),
                folder=self.folder,
            )

    def _steps(self, rounds: int) -> int:
        early = self.plan.rewind or 0
        each = self.plan.round_epochs or self.recipe.epochs - early
        batch = self.recipe.batch_size or len(self.data.train)
        return (early + rounds * each) * -(-len(self.data.train) // batch)

    def controlled(self, ticket: Ticket) -> Ticket:
        """The control of the ticket that the plan asks for, or the ticket itself."""
        if self.plan.control is None:
            return ticket
        control = prune.control_by_name(self.plan.control)
        model = control(self.make_model(), ticket.topology, self._stream("control"))
        return Ticket(model, Topology.of(model), ticket.history, ticket.epoch)

    def train(self, ticket: Ticket) -> Trained:
        """A copy of the ticket, trained over the epochs that are left."""
        recipe = self.recipe
        batch = recipe.batch_size or len(self.data.train)
        steps = (recipe.epochs - ticket.epoch) * -(-len(self.data.train) // batch)
        with progress_bar("training the ticket", steps) as advance:
            return train_recipe(
                recipe, self.data, model=copy.deepcopy(ticket.model), span=(ticket.epoch, recipe.epochs),
                device=self.device, callbacks=[ShowProgress(advance)],
            )  # fmt: skip

    def gradient_norm(self, model: nn.Module) -> float | None:
        """Norm of the loss's gradient at a network's connections; None where the loss depends on none."""
        try:
            return diagnose.gradient_flow(model, self.probe).norm
        except InputError:
            return None


def check_epochs(plan: Plan, recipe: Recipe, trains_on: bool) -> Recipe:
    """The recipe, with as many epochs as the rounds need.

    Raises:
        InputError: no epoch is left where one is asked for.
    """
    if plan.rewind is not None and plan.rewind >= recipe.epochs:
        raise InputError(
            f"--rewind {plan.rewind} goes back to the end of the training or beyond: take an epoch below "
            f"--epochs {recipe.epochs}"
        )
    if plan.rounds is None or plan.rewind is not None:
        return recipe
    if plan.round_epochs is None:
        raise InputError("--rewind none keeps the weights from round to round: give --round-epochs too")
    needed = plan.rounds * plan.round_epochs
    if trains_on and needed >= recipe.epochs:
        raise InputError(
            f"{plan.rounds} rounds of {plan.round_epochs} epochs leave none of --epochs {recipe.epochs} for "
            "--trained: raise --epochs"
        )
    return recipe if needed <= recipe.epochs else replace(recipe, epochs=needed)


def keep_options(folder: Path, options: Mapping[str, Any]) -> None:
    """Write the options beside the rounds that a folder keeps, or compare them with those that lie there.

    Raises:
        MismatchError: the folder's rounds are of other options.
        FileError: the folder cannot be made, or the options cannot be read or written.
    """
    path, plain = folder / "options.json", json.loads(json.dumps(options))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = json.loads(path.read_text()) if path.exists() else None
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"cannot use the folder '{folder}' ({error}): give another folder") from error
    if before is None:
        with atomic_write(path) as file:
            file.write(json.dumps(plain, indent=2).encode())
    elif before != plain:
        names = [n for n in plain if not isinstance(before, dict) or before.get(n) != plain[n]]
        raise MismatchError(
            f"'{folder}' keeps the rounds of a pruning with other options ({', '.join(names) or 'fewer'}): "
            "repeat those, or give another folder"
        )


def notes_of(paths: diagnose.Connectivity, caught: Sequence[Any]) -> list[str]:
    """A sentence for each thing that died, and for a choice that was by chance."""
    tied = dict.fromkeys(str(w.message) for w in caught if "all scores were equal" in str(w.message))
    return [*paths.faults(), *tied]
