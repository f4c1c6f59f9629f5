"""The options of ``regraft federate``, in groups, and what is made of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from regraft.errors import InputError, unknown
from regraft.evolve import METHODS
from regraft.federated import Federation, Local, Median, SelectNeurons, SparseMerge, TrimmedMean
from regraft.federated.baselines import BASELINES, Baseline
from regraft.federated.baselines import by_name as baseline_by_name
from regraft.federated.client import Drop
from regraft.federated.strategy import Strategy
from regraft.federated.wire import TYPES
from regraft.merging.align import Align
from regraft.merging.align.named import ALIGNMENTS
from regraft.merging.combine import Rule
from regraft.train import OPTIMIZERS, Recipe
from regraft.train.optimizers import FACTORS

F = TypeVar("F", bound=Callable[..., Any])

ENGINES = ("embedded", "flower")
TOPOLOGIES = ("star", "ring", "random", "full")
ROBUST = ("none", "median", "trimmed")

_local, _rounds = Local(), Federation(SparseMerge(), Local())


def _group(*options: Callable[[Any], Any]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _names(known: Any) -> str:
    return ", ".join(known)


client_options = _group(
    click.option("--clients", type=int, default=20, metavar="N", help="Number of clients."),
    click.option("--partition", default="iid", metavar="NAME[:X]",
                 help="Who has which samples: iid; dirichlet:ALPHA, the smaller the more unlike; classes:K, "
                      "about K classes a client."),
    click.option("--local-epochs", type=int, default=_local.epochs, metavar="N",
                 help="Passes over a client's samples in a round."),
    click.option("--batch-size", type=int, default=_local.batch_size, metavar="N", help="Samples per step."),
    click.option("--optimizer", default=_local.optimizer, metavar="NAME", help=f"{_names(OPTIMIZERS)}."),
    click.option("--lr", type=float, default=_local.lr, metavar="X", help="Learning rate."),
    click.option("--lr-schedule", default=_local.lr_schedule, metavar="NAME",
                 help=f"Learning rate over rounds: {_names(FACTORS)}."),
    click.option("--momentum", type=float, default=None, metavar="X", help="[default: 0.9 for sgd]"),
    click.option("--weight-decay", type=float, default=0.0, metavar="X", help="L2 penalty."),
    click.option("--evolve", default=_local.evolve, metavar="NAME",
                 help=f"How clients change the topology: {_names(METHODS)}, none."),
    click.option("--rate", default=str(_local.rate), metavar="X",
                 help="Share of the connections that is replaced in a round, or a schedule such as cosine."),
    click.option("--grow-batches", type=int, default=_local.grow_batches, metavar="N",
                 help="Minibatches that growth by gradients looks at."),
    click.option("--until", type=float, default=_local.until, metavar="X",
                 help="Share of the rounds in which topologies change."),
    click.option("--drop", type=click.Choice(["client", "server"]), default=None,
                 help="Where connections are dropped: on clients before training, or by cutting the merged "
                      "network down.  [default: server, client where there is none]"),
    click.option("--together", is_flag=True, help="All clients grow the same connections."),
)  # fmt: skip

server_options = _group(
    click.option("--rounds", type=int, default=_rounds.rounds, metavar="N", help="Rounds."),
    click.option("--fraction", type=float, default=1.0, metavar="X", help="Share of the clients in a round."),
    click.option("--weigh", type=click.Choice(["examples", "clients"]), default="examples",
                 help="Weigh clients by their samples, or all alike."),
    click.option("--over", type=click.Choice(["networks", "present"]), default="networks",
                 help="What averages divide by: all clients, or those that have the connection."),
    click.option("--scope", type=click.Choice(["layer", "global"]), default="layer",
                 help="Cut the merged network to the density in each layer, or by one threshold for all."),
    click.option("--align", is_flag=False, flag_value="weights", default=None, metavar="[NAME]",
                 help=f"Bring the clients' units into one order first: {_names(ALIGNMENTS)}."),
    click.option("--robust", default="none", metavar="NAME[:X]",
                 help="Instead of averages: median, or trimmed:SHARE without the extremes."),
    click.option("--neurons", is_flag=True, help="Instead of averages: keep the clients' best units whole."),
    click.option("--min-fit", type=int, default=1, metavar="N", help="Fewest updates that make a round."),
    click.option("--clip", type=float, default=None, metavar="X",
                 help="Bound of the norm of a client's change."),
    click.option("--noise", type=float, default=0.0, metavar="X",
                 help="Gaussian noise, as a multiple of the clip; goes with --weigh clients."),
    click.option("--baseline", default=None, metavar="NAME", help=f"Instead: {_names(BASELINES)}."),
    click.option("--wire", type=click.Choice(list(TYPES)), default="float32",
                 help="Type of values on the way."),
    click.option("--lost", type=float, default=0.0, metavar="X", help="Share of updates lost on the way."),
    click.option("--engine", type=click.Choice(ENGINES), default="embedded",
                 help="embedded: in this process; flower: Flower's simulation (extra federated)."),
    click.option("--topology", type=click.Choice(TOPOLOGIES), default="star",
                 help="star: a server; ring, random, full: no server, neighbours merge."),
    click.option("--exchanges", type=int, default=1, metavar="N",
                 help="How often neighbours merge in a round, where there is no server."),
    click.option("--state", type=click.Path(file_okay=False, path_type=Path), default=None, metavar="DIR",
                 help="Keep the network here after each round."),
    click.option("--resume", is_flag=True, help="Go on from what is in DIR."),
)  # fmt: skip


def make_local(choices: dict[str, Any], rounds: int) -> Local:
    """What clients do, from the options; ``topology`` is among them."""
    rate: float | str = choices["rate"]
    with contextlib.suppress(ValueError):
        rate = float(rate)
    names = (
        "batch_size",
        "optimizer",
        "lr",
        "lr_schedule",
        "momentum",
        "weight_decay",
        "evolve",
        "until",
        "together",
        "grow_batches",
    )
    plain = {name: choices[name] for name in names}
    served = choices["topology"] == "star" and not choices["neurons"]
    drop: Drop = choices["drop"] or ("server" if served else "client")
    neurons = "activity" if choices["neurons"] else None
    return Local(
        epochs=choices["local_epochs"], rate=rate, rounds=rounds, drop=drop, unit_score=neurons, **plain
    )


def make_federation(
    choices: dict[str, Any], local: Local, seed: int, baseline: Baseline | None
) -> Federation:
    """Strategy and rounds, from the options.

    Raises:
        InputError: options that exclude each other, or a value out of range.
    """
    strategy: Strategy = baseline.strategy if baseline else make_strategy(choices, seed)
    return Federation(
        strategy, baseline.local(local) if baseline else local, choices["rounds"], choices["fraction"],
        choices["wire"], choices["lost"], seed,
    )  # fmt: skip


def make_strategy(choices: dict[str, Any], seed: int) -> Strategy:
    """What the server does, from the options."""
    robust = robust_rule(choices["robust"])
    if choices["neurons"]:
        for option in ("align", "robust", "clip"):
            if choices[option] not in (None, "none"):
                raise InputError(
                    f"--neurons keeps units whole, so --{option} has no use: leave one of them out"
                )
        return SelectNeurons(min_fit=max(2, choices["min_fit"]), seed=seed)
    return SparseMerge(
        robust or "average", robust or "average", over=choices["over"], scope=choices["scope"],
        by_examples=choices["weigh"] == "examples" and robust is None, align=alignment(choices["align"]),
        min_fit=choices["min_fit"], clip=choices["clip"], noise=choices["noise"], seed=seed,
    )  # fmt: skip


def alignment(name: str | None) -> str | Align | None:
    """``--align`` as an alignment.

    Raises:
        InputError: an unknown one, or one that needs data, which a server has not.
    """
    if name == "activations":
        raise InputError("--align activations needs samples, which a server has not: take --align weights")
    return name


def robust_rule(text: str) -> Rule | None:
    """``none``, ``median`` or ``trimmed:SHARE`` as a rule.

    >>> robust_rule("trimmed:0.2")
    TrimmedMean(share=0.2)
    """
    word, _, number = text.partition(":")
    if word not in ROBUST:
        raise unknown("robust rule", word, ROBUST)
    if word == "trimmed":
        try:
            return TrimmedMean(float(number)) if number else TrimmedMean()
        except ValueError as error:
            raise InputError(f"--robust is {text!r}: {error}") from error
    if number:
        raise InputError(f"--robust is {text!r}, but '{word}' takes no number")
    return Median() if word == "median" else None


def make_recipe(choices: dict[str, Any], seed: int, dense: bool) -> Recipe:
    """The model's part of a training recipe, which says how it is built."""
    names = ("model", "dropout", "activation", "init")
    plain = {name: choices[name] for name in names}
    if dense:
        return Recipe(**plain, dense=True, seed=seed)
    return Recipe(**plain, density=choices["density"], allocate=choices["allocate"], seed=seed)


def chosen_baseline(name: str | None, choices: dict[str, Any]) -> Baseline | None:
    """``--baseline`` as one.

    Raises:
        InputError: unknown, or with options that it does not know.
    """
    if name is None:
        return None
    for option in ("align", "neurons", "clip"):
        if choices[option]:
            raise InputError(f"--baseline {name} says what the server does, so --{option} has no use")
    return baseline_by_name(name)
