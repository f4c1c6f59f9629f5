"""``Recipe``: a whole training as plain data, and ``train_recipe``, which follows it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from regraft import losses, models
from regraft.data import Data
from regraft.errors import InputError
from regraft.evolve import RowNormalise
from regraft.layers import sparsify
from regraft.search import Metric
from regraft.train import evolving, optimizers, seeds
from regraft.train.callbacks import AfterStep, EarlyStopping, StopAfterAccuracy
from regraft.train.distill import Teachers
from regraft.train.evolving import EVOLUTIONS, evolver_of, thresholds_of
from regraft.train.loop import check_epochs, fit
from regraft.train.run import Callback, History

LARGE = 2**28  # values of the dense weights, 1 GiB of them: more are never made for a sparse network


@dataclass(frozen=True)
class Recipe:
    """Every choice of a training; the command line's options have the same names.

    Attributes:
        model: short name; ``in`` and ``classes`` stand for the data's sizes.
        density, epsilon, dense: how sparse: a density in (0, 1], Erdos-Renyi's epsilon, or not at all; with
            none of them epsilon is 20.
        allocate, include, exclude: how ``density`` is spread, and over which layers.
        dropout, activation, init: of the model; see ``models.build``.
        sparse_init: ``"rescale"`` keeps the activations' variance as in the dense network, ``"keep"`` leaves
            the drawn values; see ``sparsify``.
        evolve: a name of ``evolve.METHODS``, or ``"gmp"`` (gradual magnitude pruning from a full network to
            ``density``, all layers together), ``"dst"`` (learned thresholds), ``"none"``; default ``"set"``
            where sparse.
        rate: schedule of the evolution rate, ``NAME[:KEY=VALUE,...]``; default the method's own.
        zeta: evolution rate at the start, in [0, 1]; default the schedule's own.
        evolve_every: ``"epoch"``, ``"50epochs"``, or a number of steps; default the method's own.
        grow_init: initial values of grown connections.
        search, k_similar, metric, grow_samples: of ``"search"``, see ``evolve.InnerProduct``.
        grow_batches: of ``"search"`` and ``"rigl"``: minibatches that growth looks at.
        alpha: of ``"dst"``: weight of the penalty; the larger, the sparser.
        explore: note the share of positions that were ever active.
        normalise_rows: scale each unit's incoming weights to length 1 after each step.
        optimizer, lr, momentum, weight_decay, lr_schedule: see ``optimizer_by_name`` and
            ``schedule_by_name``. Default lr 0.01 and momentum 0.9 for sgd, 0.001 and 0 for the others.
        loss, label_smoothing: see ``losses.by_name``.
        batch_size: samples per step; None for full batches.
        patience, restore_best: see ``EarlyStopping``; None for never.
        stop_accuracy, stop_extra: see ``StopAfterAccuracy``; None for never.
        seed: of the initial values, the topology, the order of samples, dropout and evolution.
    """

    model: str = "mlp:in-256-256-classes"
    density: float | None = None
    epsilon: float | None = None
    dense: bool = False
    allocate: str = "erdos-renyi"
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    dropout: float = 0.0
    activation: str = "relu"
    init: str = "he"
    sparse_init: str = "rescale"
    evolve: str | None = None
    rate: str | None = None
    zeta: float | None = None
    evolve_every: str | None = None
    grow_init: str = "zeros"
    search: str = "exact"
    k_similar: float | None = None
    metric: Metric = "abs"
    grow_batches: int = 1
    grow_samples: int | None = 4096
    alpha: float = 5e-4
    explore: bool = False
    normalise_rows: bool = False
    optimizer: str = "sgd"
    lr: float | None = None
    momentum: float | None = None
    weight_decay: float = 0.0
    lr_schedule: str = "constant"
    loss: str = "cross-entropy"
    label_smoothing: float = 0.0
    epochs: int = 20
    batch_size: int | None = 100
    patience: int | None = None
    restore_best: bool = False
    stop_accuracy: float | None = None
    stop_extra: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        given = [n for n in ("density", "epsilon") if getattr(self, n) is not None] + ["dense"] * self.dense
        if len(given) > 1:
            raise InputError(f"{' and '.join(given)} exclude each other: give one of them")
        if self.dense and self.evolution in EVOLUTIONS and self.evolution != "none":
            raise InputError(f"a dense network has no topology to evolve, but evolve is {self.evolve!r}")
        if self.normalise_rows and self.dense:
            raise InputError("normalise_rows scales the rows of sparse weights, but the network is dense")
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"batch_size is {self.batch_size!r}, but must be 1 or more")
        if self.restore_best and self.patience is None:
            raise InputError("restore_best goes with early stopping: give a patience too")
        self._check_names()

    def _check_names(self) -> None:
        """Raise InputError now, not after the data has been read."""
        check_epochs(self.epochs)
        losses.by_name(self.loss, self.label_smoothing)
        evolving.check(self)
        options = self.resolved()
        optimizers.check_optimizer(
            self.optimizer, lr=options["lr"], momentum=options["momentum"], weight_decay=self.weight_decay
        )
        optimizers.check_schedule(self.lr_schedule, options["lr"], self.epochs)
        if self.patience is not None:
            EarlyStopping(self.patience)
        if self.stop_accuracy is not None:
            StopAfterAccuracy(self.stop_accuracy, self.stop_extra)

    @property
    def evolution(self) -> str:
        """How the topology changes, with the default filled in."""
        return self.evolve or ("none" if self.dense else "set")

    def resolved(self) -> dict[str, Any]:
        """All choices with the defaults that depend on others filled in; plain JSON values."""
        sgd = self.optimizer == "sgd"
        bare = not self.dense and self.density is None and self.epsilon is None and self.evolution != "dst"
        filled = asdict(self) | {
            "epsilon": 20.0 if bare else self.epsilon,
            "evolve": self.evolution,
            "evolve_every": evolving.every_of(self),
            "lr": (0.01 if sgd else 0.001) if self.lr is None else self.lr,
            "momentum": (0.9 if sgd else 0.0) if self.momentum is None else self.momentum,
        }
        return {k: list(v) if isinstance(v, tuple) else v for k, v in filled.items()}


@dataclass(frozen=True)
class Trained:
    """What ``train_recipe`` gives back: the network and what happened."""

    model: nn.Module
    history: History


def build_model(recipe: Recipe, data: Data) -> nn.Module:
    """The recipe's network before training, on the CPU.

    A sparse network whose dense weights would have more than ``LARGE`` values is made without them: its
    topology is the one it would have anyway, its values are drawn for the connections alone, so that they are
    others than those of a dense network with the same seed.

    Raises:
        InputError: an option that cannot be used.
        MismatchError: the model does not fit the data.
    """
    generator = seeds.stream(recipe.seed, "init")

    def build(device: str) -> nn.Module:
        return models.build(
            recipe.model, input_shape=data.input_shape, classes=data.classes, dropout=recipe.dropout,
            activation=recipe.activation, init=recipe.init, generator=generator, device=device,
        )  # fmt: skip

    if recipe.dense:
        return build("cpu")
    if recipe.evolution == "dst":
        return thresholds_of(recipe).prepare(build("cpu"))
    if recipe.evolution == "gmp":
        return sparsify(build("cpu"), 1.0, include=recipe.include, exclude=recipe.exclude)
    model = build("meta")
    large = sum(p.numel() for p in model.parameters()) > LARGE
    options = recipe.resolved()
    model = sparsify(
        model if large else build("cpu"), options["density"], epsilon=options["epsilon"],
        allocate=recipe.allocate, include=recipe.include, exclude=recipe.exclude,
        init=options["sparse_init"], generator=seeds.stream(recipe.seed, "topology"),
    )  # fmt: skip
    if large:
        for module in model.modules():
            if any(p.is_meta for p in module.parameters(recurse=False)):
                module.to_empty(device="cpu", recurse=False)  # a layer that stays dense
        models.initialise(
            model, recipe.init, activation=recipe.activation, sparse_init=recipe.sparse_init,
            generator=generator,
        )  # fmt: skip
    return model


def train_recipe(
    recipe: Recipe,
    data: Data,
    *,
    model: nn.Module | None = None,
    span: tuple[int, int] | None = None,
    teachers: Teachers | None = None,
    device: torch.device | str = "cpu",
    callbacks: Iterable[Callback] = (),
    resume: str | os.PathLike[str] | None = None,
    config: dict[str, Any] | None = None,
) -> Trained:
    """Train as the recipe says; the same recipe and data give the same network, bit for bit, on one machine.

    Args:
        model: what ``build_model`` gave for this recipe and data, or any network to train on; default:
            ``build_model`` is called here.
        span: train only these epochs ``(start, stop)`` of the recipe's, counted from 0: the learning rate
            starts where the schedule has it at ``start``, the optimizer anew. Default: all.
        teachers: networks to learn from besides the labels; see ``Teachers``.
        device: where to train; the network stays there.
        callbacks: besides those that the recipe asks for.
        resume, config: see ``fit``.

    >>> from regraft import data
    >>> digits = data.load("digits", per_class=20)
    >>> recipe = Recipe("mlp:in-32-classes", density=0.2, epochs=3, batch_size=20, lr=0.1, rate="exd")
    >>> train_recipe(recipe, digits).history.final["test_accuracy"] > 0.5
    True

    Raises:
        InputError: an option that cannot be used, or training diverged.
        MismatchError: the model does not fit the data, or the checkpoint is of another run.
        FileError: the checkpoint cannot be read.
    """
    options = recipe.resolved()
    model = (build_model(recipe, data) if model is None else model).to(device)
    optimizer = optimizers.optimizer_by_name(
        recipe.optimizer, model.parameters(),
        lr=options["lr"], momentum=options["momentum"], weight_decay=recipe.weight_decay,
    )  # fmt: skip
    batch_size = len(data.train) if recipe.batch_size is None else min(recipe.batch_size, len(data.train))
    start, stop = _check_span(span, recipe.epochs)
    history = fit(
        model,
        data,
        epochs=stop - start,
        optimizer=optimizer,
        scheduler=_advanced(optimizers.schedule_by_name(recipe.lr_schedule, optimizer, recipe.epochs), start),
        loss=losses.by_name(recipe.loss, recipe.label_smoothing),
        batch_size=batch_size,
        evolver=evolver_of(recipe, model, optimizer, -(-len(data.train) // batch_size), stop - start),
        teachers=teachers,
        callbacks=[*_callbacks(recipe, model), *callbacks],
        seed=recipe.seed if start == 0 else seeds.derived(recipe.seed, f"from epoch {start}"),
        resume=resume,
        config={"options": options, **(config or {})},
    )
    if recipe.evolution == "dst":
        model = thresholds_of(recipe).finish(model)
    return Trained(model, history)


def _check_span(span: tuple[int, int] | None, epochs: int) -> tuple[int, int]:
    start, stop = (0, epochs) if span is None else span
    if not 0 <= start < stop <= epochs:
        raise InputError(
            f"the span of epochs is {start} to {stop}, but must go forward within the recipe's {epochs}"
        )
    return start, stop


def _advanced(scheduler: LRScheduler, epochs: int) -> LRScheduler:
    """The schedule as it stands after so many epochs; one that waits for a plateau starts anew."""
    if not isinstance(scheduler, ReduceLROnPlateau):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch expects a step of the optimizer before each
            for _ in range(epochs):
                scheduler.step()
    return scheduler


def _callbacks(recipe: Recipe, model: nn.Module) -> list[Callback]:
    chosen: list[Callback] = []
    if recipe.normalise_rows:
        chosen.append(AfterStep(RowNormalise().attach(model)))
    if recipe.patience is not None:
        chosen.append(EarlyStopping(recipe.patience, restore_best=recipe.restore_best))
    if recipe.stop_accuracy is not None:
        chosen.append(StopAfterAccuracy(recipe.stop_accuracy, recipe.stop_extra))
    return chosen
