"""The options of ``regraft prune``, and the plan that they say."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from regraft import models, prune, scores
from regraft.cli.declare import count, group, listed, text
from regraft.errors import InputError, check_density, unknown
from regraft.models import ACTIVATIONS
from regraft.prune import PATHS
from regraft.prune.upfront import Ties
from regraft.scores import SCORES
from regraft.select import SELECTIONS
from regraft.train import Recipe

SCHEDULES = ("upfront", "iterative", "gradual")
FIELDS = "receptive-fields"
"""Goes where a score goes, but chooses units before connections: see ``prune.receptive_fields``."""

ROUNDS = 10
"""Of a schedule in rounds that is not told how many."""


@dataclass(frozen=True)
class Plan:
    """How a network is pruned; the options have the same names.

    Attributes:
        rewind: epoch that each round goes back to; None keeps the weights, or where there are no rounds.
        rounds, round_epochs: None where there are no rounds; ``round_epochs`` None trains to the end.
    """

    score: str
    density: float
    schedule: str
    shots: int
    rounds: int | None
    rewind: int | None
    round_epochs: int | None
    path: str
    scope: str
    floor: int
    ties: Ties
    revive: bool
    control: str | None
    init: tuple[str, ...]
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    samples: int
    balanced: bool

    @property
    def in_rounds(self) -> bool:
        """Whether networks are trained between prunings."""
        return self.schedule != "upfront"

    @property
    def drawn(self) -> str:
        """How a new network's values are drawn."""
        return self.init[0] if self.init and self.init[0] in models.INITS else "he"

    @property
    def inits(self) -> tuple[str, ...]:
        """What changes the drawn values, in order."""
        return self.init[1:] if self.init and self.init[0] in models.INITS else self.init

    @property
    def shared(self) -> dict[str, Any]:
        """The arguments that ``upfront`` and ``iterative`` share."""
        return {
            "score": scores.parse(self.score), "density": self.density, "shots": self.shots,
            "path": self.path, "scope": self.scope, "floor": self.floor, "ties": self.ties,
            "revive": self.revive, "include": self.include, "exclude": self.exclude,
        }  # fmt: skip

    def plain(self) -> dict[str, Any]:
        """For provenance and JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def make_plan(choices: dict[str, Any]) -> Plan:
    """The plan that the options say; they are taken out of ``choices``.

    Raises:
        InputError: an unknown name, a number out of range, or options that do not go together.
        FileError: the score names a file that cannot be read.
    """
    taken = {name: choices.pop(name) for name in Plan.__dataclass_fields__}
    check_density(taken["density"])
    schedule = taken["schedule"]
    for value, kind, known in (
        (schedule, "schedule", SCHEDULES), (taken["scope"], "scope", SELECTIONS),
        (taken["path"], "path", PATHS), (taken["ties"], "tie rule", ("random", "magnitude")),
    ):  # fmt: skip
        if value not in known:
            raise unknown(kind, value, known)
    if taken["score"] == FIELDS:
        _check_fields(taken)
    else:
        scores.parse(taken["score"])
    if taken["control"] is not None:
        prune.control_by_name(taken["control"])
    rewind = _rewind(taken["rewind"], schedule)
    if schedule == "upfront":
        for name in ("rounds", "round_epochs"):
            if taken[name] is not None:
                raise InputError(
                    f"--{name.replace('_', '-')} goes with --schedule iterative or gradual: pruning upfront "
                    "has --shots, and trains nothing"
                )
    elif taken["control"] is not None and rewind != 0:
        raise InputError(
            f"--control {taken['control']} needs the values that the network started from: take it with "
            "--schedule upfront, or with --rewind 0"
        )
    rounds = None if schedule == "upfront" else ROUNDS if taken["rounds"] is None else taken["rounds"]
    each = taken["round_epochs"]
    if schedule == "gradual" and each is None:
        each = 1
    lists = {name: tuple(taken[name]) for name in ("include", "exclude", "init")}
    lists["include"] = lists["include"] or ("*",)
    plan = Plan(**{**taken, **lists, "rewind": rewind, "rounds": rounds, "round_epochs": each})
    for i, name in enumerate(plan.init):
        if name in models.INITS and i > 0:
            raise InputError(f"--init {name} draws new values: it must come before the others")
        if name not in models.INITS:
            prune.init_by_name(name)
    return plan


def _check_fields(taken: dict[str, Any]) -> None:
    """Receptive fields are made at once, by a rule of their own.

    Raises:
        InputError: an option that only a score can follow.
    """
    alone = {"schedule": "upfront", "shots": 1, "scope": "global", "floor": 0, "revive": False}
    for name, only in alone.items():
        if taken[name] != only:
            flag = "--revive" if name == "revive" else f"--{name} {taken[name]}"
            raise InputError(
                f"{flag} goes with a score, but --score {FIELDS} chooses all connections at once"
            )


def _rewind(text: str | None, schedule: str) -> int | None:
    """The epoch that ``--rewind`` says."""
    if schedule != "iterative":
        if text is not None and not (schedule == "gradual" and text == "none"):
            raise InputError(f"--rewind {text} goes with --schedule iterative, but it is {schedule}")
        return None
    if text == "none":
        return None
    if text is not None and not text.isdecimal():
        raise InputError(
            f"--rewind is {text!r}, but must be an epoch, 0 or more, or none to keep the weights"
        )
    return int(text or 0)


_SCORE_HELP = (
    "Who stays: {names}; stacked(a, b), inverted(a), learned:FILE; options as in "
    f"grasp:temperature=1. Of an MLP also {FIELDS} (wants --samples 1000 or more)."
)

prune_options = group(
    click.option("--model", default=Recipe().model, metavar="NAME",
                 help="The network, as in train: mlp:SIZES, lenet-300-100, lenet-5, resnet-N, wrn-N-K."),
    click.option("--from", "start", type=click.Path(path_type=Path), default=None, metavar="FILE",
                 help="Instead: this network, dense or sparse.  [default: a new one]"),
    click.option("--dropout", type=float, default=0.0, metavar="X",
                 help="Share of hidden units dropped in training, in [0, 1)."),
    text("--activation", "relu", "Between the layers: {names}.", names=ACTIVATIONS),
    click.option("--init", multiple=True, metavar="NAME",
                 help="Initial values, in order if repeated: he or torch to draw them, then scores:SCORE "
                      f"(scores as weights), {listed(prune.INITS)}.  [default: he]"),
    click.option("--density", type=float, required=True, metavar="X",
                 help="Share of all positions that stays, in (0, 1]."),
    text("--score", "magnitude", _SCORE_HELP, "SCORE", names=SCORES),
    text("--schedule", "upfront",
         "upfront: before training; iterative: train, prune, rewind, in rounds; gradual: the same with "
         "short rounds and weights that are kept."),
    count("--shots", 1, "Steps in which each pruning goes down to its density.", 1),
    count("--rounds", None, f"Trainings, each with a pruning after it.  [default: {ROUNDS}]", 1),
    text("--rewind", None,
         "Epoch that iterative goes back to after each round, or none.  [default: 0]", "N"),
    count("--round-epochs", None, "Epochs of each round.  [default: all; gradual: 1]", 1),
    text("--path", "exponential", "Density over the shots and rounds: {names}.", names=PATHS),
    text("--scope", "global", "{names}: compare all layers, or give each the same density.",
         names=SELECTIONS),
    count("--floor", 0, "Connections that each layer keeps at least.", 0),
    text("--ties", "random", "Among equal scores: random, or magnitude (the larger weight)."),
    click.option("--revive/--no-revive", default=False,
                 help="Let later shots take back what earlier ones cut (multi-shot SNIP needs it)."),
    click.option("--include", multiple=True, metavar="PATTERN",
                 help="Prune only layers whose name fits this shell pattern; may be repeated."),
    click.option("--exclude", multiple=True, metavar="PATTERN",
                 help="Leave layers whose name fits this shell pattern dense; may be repeated."),
    text("--control", None,
         "Write this control of the ticket instead: {names}.  [default: none]", names=prune.CONTROLS),
    count("--samples", 100, "Training samples that the score sees.", 1),
    click.option("--balanced/--any", default=False,
                 help="As many samples of each class, or as they come."),
)  # fmt: skip
"""The network, the score and the schedule."""
