"""``iterative``: train, prune, rewind, again and again, until a lottery ticket is left."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from regraft import scores
from regraft.errors import InputError, check_density
from regraft.evolve.named import Patterns, as_patterns
from regraft.evolve.optimizer_state import Optimizers
from regraft.files import PathLike
from regraft.probe import Probe
from regraft.prune import paths
from regraft.prune.apply import apply
from regraft.prune.budget import Scope, Selections, check_count
from regraft.prune.candidates import candidates, is_sparse
from regraft.prune.rounds import Round, Saved, State, described
from regraft.prune.upfront import Ties, upfront, with_generator
from regraft.schedules import Progress
from regraft.scores import Score
from regraft.topology import Topology


class Train(Protocol):
    """``(model, start, stop) -> metric``: train a model in place over the epochs [start, stop).

    ``stop`` None means to the end of the training, however long the caller's training is. The metric (an
    accuracy, say) goes into the history; None for none. The same network and the same epochs must give the
    same result, so the function seeds the order of samples and dropout itself. It starts with an optimizer
    and a schedule of its own: what a call leaves in them is not rewound and not kept, unless ``iterative``
    is told of the optimizer.
    """

    def __call__(self, model: nn.Module, start: int, stop: int | None) -> float | None: ...


@dataclass(frozen=True, eq=False)
class Ticket:
    """What ``iterative`` leaves: a pruned network, not yet trained since its last pruning.

    Attributes:
        model: the sparse network, with the values of the rewind point, or those it was pruned with.
        topology: its connections.
        history: the rounds.
        epoch: where its training starts: ``train(ticket.model, ticket.epoch, None)``.
    """

    model: nn.Module
    topology: Topology
    history: tuple[Round, ...]
    epoch: int


def iterative(
    make_model: Callable[[], nn.Module],
    train: Train,
    probe: Probe | None = None,
    *,
    score: str | Score = "magnitude",
    density: float,
    rounds: int,
    rewind_to: int | None = 0,
    epochs: int | None = None,
    shots: int = 1,
    path: str | paths.Path = "exponential",
    scope: Scope = "global",
    floor: int = 0,
    revive: bool = False,
    ties: Ties = "random",
    include: Patterns = ("*",),
    exclude: Patterns = (),
    generator: torch.Generator | None = None,
    optimizers: Callable[[], Optimizers] | None = None,
    folder: PathLike | None = None,
    on_round: Callable[[Round], object] | None = None,
) -> Ticket:
    """Prune in rounds. Each round trains the network, prunes it by what it learned, and rewinds.

    - ``rewind_to=0`` with score magnitude is IMP (Frankle and Carbin 2019, arXiv:1803.03635): what is left
      goes back to its initial values. ``rewind_to=k`` goes back to epoch k, which harder problems need
      (Frankle et al. 2020, arXiv:1912.05671). All goes back bit for bit, biases and batch norm's statistics
      too.
    - ``rewind_to=None`` keeps the weights: training and pruning in turn (Han et al. 2015, arXiv:1506.02626),
      and with few ``epochs`` per round gradual pruning.

    Args:
        make_model: gives the network, dense or sparse; the same at each call.
        train: see ``Train``.
        probe, score, shots, scope, floor, revive, ties, include, exclude, generator: as in ``upfront``, which
            prunes each round.
        density: share of positions that is left after the last round, in (0, 1].
        rounds: trainings, each with a pruning after it.
        epochs: of each round; default: to the end of the training. With ``rewind_to=None`` the rounds follow
            each other, so that round r trains the epochs [(r - 1) epochs, r epochs).
        path: density over the rounds, and over the shots of each.
        optimizers: called at each pruning, where the weights are kept: the optimizer that ``train`` holds on
            to, whose state then follows the connections. The network must be sparse from the start.
        folder: where the state is kept after each round; the same call goes on after the last of them.
        on_round: called with a ``Round`` after each.

    >>> def make_model():
    ...     with torch.random.fork_rng():
    ...         torch.manual_seed(0)
    ...         return nn.Sequential(nn.Linear(10, 10))
    >>> def train(model, start, stop):  # yours: any deterministic training
    ...     optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ...     for _ in range(start, 3 if stop is None else stop):
    ...         optimizer.zero_grad()
    ...         (model(torch.eye(10)) - torch.eye(10)).square().mean().backward()
    ...         optimizer.step()
    >>> ticket = iterative(make_model, train, density=0.25, rounds=2)
    >>> [(done.trained_density, done.density) for done in ticket.history]
    [(1.0, 0.5), (0.5, 0.25)]
    >>> kept, first = ticket.model[0].weight, make_model()[0].weight.flatten()
    >>> torch.equal(kept.values, first[kept.index])
    True

    Warns:
        LayerCollapseWarning: a round left a layer without connections.

    Raises:
        InputError: as ``upfront``; rounds, epochs or rewind_to out of range; a metric that is not a number.
        MismatchError: the folder holds rounds of another call, or ``make_model`` gives another network.
        FileError: the state cannot be read or written.
    """
    _check(density, rounds, shots, rewind_to, epochs)
    score = scores.parse(score) if isinstance(score, str) else score
    probe = with_generator(probe, generator)
    model = make_model()
    _check_optimizers(model, optimizers, rewind_to, folder)
    budget = Selections(candidates(model, include, exclude)[1], density, path, scope, floor)
    config = {
        "score": scores.text_of(score), "density": density, "rounds": rounds, "rewind_to": rewind_to,
        "epochs": epochs, "shots": shots, "path": described(path), "scope": described(scope), "floor": floor,
        "revive": revive, "ties": ties, "include": as_patterns(include), "exclude": as_patterns(exclude),
    }  # fmt: skip
    saved = Saved(folder, config, (generator, None if probe is None else probe.generator))
    with saved.held():
        state = saved.load(model, rewinds=rewind_to is not None) or _start(model, train, rewind_to)
        for number in range(len(state.history) + 1, rounds + 1):
            metric = _metric(train(state.model, *_span(number, rewind_to, epochs)), number)
            state.topology = upfront(
                state.model, probe, score=score, density=budget.density_at(Progress(number, rounds)),
                shots=shots, path=path, scope=scope, floor=floor, revive=revive, ties=ties, include=include,
                exclude=exclude, generator=generator,
            )  # fmt: skip
            if state.point is not None:
                state.model = copy.deepcopy(state.point)
            apply(state.model, state.topology, optimizer=None if optimizers is None else optimizers())
            before = state.history[-1].density if state.history else budget.start
            counts = {name: c.nnz for name, c in state.topology.items()}
            state.history.append(Round(number, before, metric, state.topology.density, counts))
            saved.save(state)
            if on_round is not None:
                on_round(state.history[-1])
        epoch = _span(rounds + 1, rewind_to, epochs)[0]
        return Ticket(state.model, state.topology, tuple(state.history), epoch)


def _start(model: nn.Module, train: Train, rewind_to: int | None) -> State:
    if rewind_to is None:
        return State(model, None)
    if rewind_to:
        train(model, 0, rewind_to)
    return State(copy.deepcopy(model), model)


def _span(number: int, rewind_to: int | None, epochs: int | None) -> tuple[int, int | None]:
    """The epochs [start, stop) that a round trains."""
    start = rewind_to if rewind_to is not None else (number - 1) * (epochs or 0)
    return start, None if epochs is None else start + epochs


def _metric(value: float | None, number: int) -> float | None:
    if value is None:
        return None
    try:
        metric = float(value)
    except (TypeError, ValueError):
        metric = math.nan
    if not math.isfinite(metric):
        raise InputError(
            f"train returned {value!r} in round {number}, but must return a finite number or None: if "
            "training diverged, take a smaller learning rate"
        )
    return metric


def _check(density: float, rounds: int, shots: int, rewind_to: int | None, epochs: int | None) -> None:
    check_density(density)
    check_count(rounds, "rounds")
    check_count(shots, "shots")
    if epochs is not None:
        check_count(epochs, "epochs")
    if rewind_to is not None and rewind_to != 0:
        try:
            check_count(rewind_to, "rewind_to")
        except InputError:
            raise InputError(
                f"rewind_to is {rewind_to!r}, but must be an epoch, 0 or more, or None to keep the weights"
            ) from None


def _check_optimizers(
    model: nn.Module, optimizers: object, rewind_to: int | None, folder: PathLike | None
) -> None:
    if optimizers is None:
        return
    if rewind_to is not None:
        raise InputError(
            f"optimizers= is for weights that are kept, but rewind_to is {rewind_to}: after a rewind each "
            "training starts with a new optimizer"
        )
    if folder is not None:
        raise InputError("folder= cannot hold an optimizer's state: leave out folder= or optimizers=")
    if not is_sparse(model):
        raise InputError(
            f"the {type(model).__name__} is dense, so pruning replaces the parameters that the optimizer "
            "holds: return regraft.sparsify(model, density=1.0) from make_model"
        )
