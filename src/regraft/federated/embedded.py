"""``federate``: rounds of many clients and a server in one process, without a network."""

from __future__ import annotations

import copy
import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from regraft import measure
from regraft.container import tensor_bytes
from regraft.data import Split
from regraft.errors import FileError, InputError
from regraft.federated import state as states
from regraft.federated import wire
from regraft.federated.client import Local, local_round
from regraft.federated.state import State
from regraft.federated.strategy import Round, Strategy, receive
from regraft.federated.update import Plan, Update, topology_of
from regraft.train import seeds
from regraft.weight import SparseWeight

SERVER = "server"


@dataclass(frozen=True)
class Federation:
    """What is done in each round, whatever engine runs it.

    Attributes:
        strategy: what the server does with the updates.
        local: what each client does.
        rounds: rounds in all.
        fraction: share of the clients that each round asks, in (0, 1]; at least one.
        dtype: type of values on the way, see ``wire.encode``.
        lost: share of updates that never arrive, in [0, 1): node loss, for studies.
        seed: of everything.

    Raises:
        InputError: a value out of range.
    """

    strategy: Strategy
    local: Local
    rounds: int = 10
    fraction: float = 1.0
    dtype: str = "float32"
    lost: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.rounds, bool) or not isinstance(self.rounds, int) or self.rounds < 1:
            raise InputError(f"rounds is {self.rounds!r}, but must be a whole number of 1 or more")
        if not 0 < self.fraction <= 1 or not 0 <= self.lost < 1:
            raise InputError(
                f"fraction is {self.fraction!r} and lost {self.lost!r}, but must be in (0, 1] and [0, 1)"
            )
        wire.check_type(self.dtype)

    def asked(self, round: int, clients: Sequence[str]) -> list[str]:
        """The clients of a round, in order."""
        count = max(1, round_half_up(self.fraction * len(clients)))
        order = torch.randperm(len(clients), generator=seeds.stream(self.seed, f"clients of round {round}"))
        return [clients[i] for i in sorted(order[:count].tolist())]

    def is_lost(self, round: int, client: str) -> bool:
        """Whether the update of a client is lost on its way."""
        stream = seeds.stream(self.seed, f"loss of {client} in round {round}")
        return self.lost > 0 and float(torch.rand((), generator=stream)) < self.lost

    def config(self, model: nn.Module, clients: Sequence[Split]) -> dict[str, Any]:
        """What must be equal for the same federation to go on: plain values."""
        digest = hashlib.blake2b(digest_size=8)
        for split in clients:
            digest.update(tensor_bytes(split.y))
        return {
            "strategy": repr(self.strategy), "local": repr(self.local), "rounds": self.rounds,
            "fraction": self.fraction, "dtype": self.dtype, "lost": self.lost, "seed": self.seed,
            "architecture": Plan.of(model).fingerprint.hex(), "clients": len(clients),
            "samples": digest.hexdigest(),
        }  # fmt: skip


def round_half_up(x: float) -> int:
    """The nearest whole number; of two, the larger."""
    return int(x + 0.5)


def federate(
    model: nn.Module,
    clients: Sequence[Split],
    federation: Federation,
    *,
    test: Split | None = None,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    on_round: Callable[[State], None] | None = None,
    on_client: Callable[[str], None] | None = None,
) -> State:
    """Federated training in one process: the clients one after the other, each update as bytes.

    Updates are merged as they arrive and then forgotten: the server holds the model, the one before it, and
    what the strategy holds, which for averages is one union of connections, whatever the number of clients.
    Clients are called ``"0"``, ``"1"``, ... and arrive in this order.

    Args:
        model: where training starts; it is not changed.
        clients: each client's samples.
        test: samples on which the global model is measured after each round.
        folder: where the model is written after each round; see ``state``.
        resume: go on from what is in ``folder``, to the same bits as without the interruption; start anew if
            nothing is there.
        on_round: called after each round.
        on_client: called with a client's name when it is done.

    Returns:
        the last model, and for each round ``clients`` asked, ``accepted``, ``rejected`` (reasons and their
        numbers), ``failed`` (clients whose training failed), ``lost``, ``upload_bytes`` and
        ``download_bytes`` over all clients, ``connections``, ``density``, ``seconds``, and
        ``test_accuracy`` and ``test_loss``.

    >>> from regraft import data, models, sparsify
    >>> from regraft.federated import IID, SparseMerge, partitioned
    >>> digits, g = data.load("digits", per_class=40), torch.Generator().manual_seed(0)
    >>> parts = partitioned(digits.train, IID(), 4, g)
    >>> model = sparsify(models.build("mlp:64-32-10", generator=g), density=0.2, generator=g)
    >>> rounds = Federation(SparseMerge(), Local(batch_size=10, lr=0.1), rounds=3)
    >>> after = federate(model, parts, rounds, test=digits.test)
    >>> len(after.history), after.history[-1]["test_accuracy"] > 0.5
    (3, True)

    Raises:
        InputError: no client, or a round with too few usable updates: the last good model is in ``folder``.
        MismatchError: ``folder`` is of another federation; samples do not fit the model.
        FileError: ``folder`` cannot be read or written.
    """
    if not clients:
        raise InputError("a federation needs at least one client, but got none")
    with states.held(folder):
        return _rounds(model, clients, federation, test, folder, resume, on_round, on_client)


def _rounds(
    model: nn.Module,
    clients: Sequence[Split],
    federation: Federation,
    test: Split | None,
    folder: str | os.PathLike[str] | None,
    resume: bool,
    on_round: Callable[[State], None] | None,
    on_client: Callable[[str], None] | None,
) -> State:
    config = federation.config(model, clients)
    at = State(copy.deepcopy(model))
    if folder is not None:
        at = _opened(folder, resume, at, config)
    while at.round < federation.rounds:
        started = time.perf_counter()
        after, row = _round(at, clients, federation, on_client or (lambda client: None), folder)
        row["seconds"] = time.perf_counter() - started
        at = State(after, at.model, [*at.history, row | describe(after, test)])
        if folder is not None:
            states.save(at, folder, config)
        if on_round is not None:
            on_round(at)
    return at


def _opened(folder: str | os.PathLike[str], resume: bool, start: State, config: dict[str, Any]) -> State:
    if states.find(folder) is None:
        states.save(start, folder, config)
        return start
    if not resume:
        raise FileError(
            f"'{folder}' holds the state of a federation: pass resume to go on with it, or give another "
            "folder"
        )
    return states.load(folder, start.model, config)


def _round(
    at: State,
    clients: Sequence[Split],
    federation: Federation,
    on_client: Callable[[str], None],
    folder: str | os.PathLike[str] | None,
) -> tuple[nn.Module, dict[str, Any]]:
    """The model after one round, and its line of the history."""
    names, number = [str(i) for i in range(len(clients))], at.round
    asked = federation.asked(number, names)
    before = set() if at.previous is None else set(federation.asked(number - 1, names))
    plan, sent = Plan.of(at.model), Broadcast.of(at, federation.dtype)
    received = wire.decode(sent.whole, plan).put(copy.deepcopy(at.model))
    base = topology_of(received)
    under_way = federation.strategy.begin(received, number, examples={c: len(clients[int(c)]) for c in asked})
    row: dict[str, Any] = {"round": number, "clients": len(asked), "failed": 0, "lost": 0, "upload_bytes": 0}
    row["download_bytes"] = sum(len(sent.to(client in before)) for client in asked)
    for client in asked:
        try:
            update = local_round(
                received,
                clients[int(client)],
                federation.local,
                round=number,
                client=client,
                seed=federation.seed,
            )
            message = wire.encode(update, plan, federation.dtype, base)
        except InputError as error:  # the client's training failed: the round goes on
            row["failed"] += 1
            under_way.door.rejected.append((client, "failed", str(error)))
        else:
            row["upload_bytes"] += len(message)
            if federation.is_lost(number, client):
                row["lost"] += 1
            else:
                receive(under_way, message, client, base)
        on_client(client)
    return _finished(under_way, folder), row | tally(under_way)


def _finished(under_way: Round, folder: str | os.PathLike[str] | None) -> nn.Module:
    try:
        return under_way.finish()
    except InputError as error:
        kept = None if folder is None else states.find(folder)
        raise InputError(f"{error}" + ("" if kept is None else f"; it is in '{kept}'")) from error


def tally(under_way: Round) -> dict[str, Any]:
    """Of a round's door: how many came in, and how many were turned away for what reason."""
    reasons = Counter(reason for _, reason, _ in under_way.door.rejected if reason != "failed")
    return {"accepted": len(under_way.door.accepted), "rejected": dict(sorted(reasons.items()))}


def describe(model: nn.Module, test: Split | None) -> dict[str, Any]:
    """Connections, density and, where there are test samples, accuracy and loss."""
    weights = [m for m in model.modules() if isinstance(m, SparseWeight)]
    nnz, size = sum(w.nnz for w in weights), sum(w.size for w in weights)
    row: dict[str, Any] = {"connections": nnz, "density": nnz / size if size else 1.0}
    if test is not None:
        found = measure.evaluate(model, test)
        row |= {"test_accuracy": found["accuracy"], "test_loss": found["loss"]}
    return row


@dataclass(frozen=True)
class Broadcast:
    """The global model as bytes, for clients that know the topology before it, and for all others.

    Attributes:
        whole: for a client that knows nothing.
        changes: for one that took part in the round before.
    """

    whole: bytes
    changes: bytes

    @classmethod
    def of(cls, at: State, dtype: str) -> Broadcast:
        """Of the model that a round starts from."""
        update = Update.of(at.model, round=at.round, client=SERVER, examples=1)
        plan = Plan.of(at.model)
        whole = wire.encode(update, plan, dtype)
        if at.previous is None:
            return cls(whole, whole)
        return cls(whole, wire.encode(update, plan, dtype, topology_of(at.previous)))

    def to(self, knows: bool) -> bytes:
        """The message for a client."""
        return self.changes if knows else self.whole
