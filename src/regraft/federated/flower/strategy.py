"""The side of the server: ``FlowerStrategy``."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterable, Iterator
from logging import INFO, WARNING
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from torch import nn

from regraft.data import Split
from regraft.errors import InputError
from regraft.federated import state as states
from regraft.federated import wire
from regraft.federated.embedded import Broadcast, Federation, describe, tally
from regraft.federated.flower import records
from regraft.federated.flower.roster import Roster
from regraft.federated.state import State
from regraft.federated.strategy import Round, receive
from regraft.federated.trust import Rejected
from regraft.federated.update import Plan, topology_of
from regraft.topology import Topology


class FlowerStrategy(Strategy):
    """A federation's rounds as a strategy of Flower, for a ``ServerApp`` of one's own.

    Replies are merged as they arrive, in the order of the clients' names, so that sums and ties come out as
    in one process; what comes before its turn waits as bytes. Nodes that do not answer are given up at the
    timeout, or when Flower finds that they have left. With a folder the model is written after each round,
    and a server that starts again goes on from there.

    Attributes:
        state: the model, and what happened in each round; see ``federate``.

    >>> from regraft import models, sparsify
    >>> from regraft.federated import Local, SparseMerge
    >>> model = sparsify(models.build("mlp:64-32-10"), density=0.2)
    >>> strategy = FlowerStrategy(model, Federation(SparseMerge(min_fit=3), Local()), clients=4)
    >>> strategy.state.round
    0
    """

    def __init__(
        self,
        model: nn.Module,
        federation: Federation,
        *,
        clients: int,
        test: Split | None = None,
        folder: str | os.PathLike[str] | None = None,
        wait: float = 600.0,
        timeout: float = 3600.0,
        on_round: Callable[[State], None] | None = None,
    ) -> None:
        """A federation that has not begun, or that goes on from what is in the folder.

        Args:
            model: where training starts; it is not changed.
            federation: what is done; the nodes' ``client_app`` takes the same.
            clients: number of nodes; their ``partition-id`` are 0 to clients - 1.
            test: samples on which the global model is measured after each round.
            folder: where the model is written after each round.
            wait: seconds for which the first round waits for nodes that are not there yet; as many as the
                strategy's ``min_fit`` must come.
            timeout: seconds after which a round goes on without those who have not answered.
            on_round: called after each round.

        Raises:
            InputError: fewer than one client.
            MismatchError: the folder is of another federation.
            FileError: the folder cannot be read or written.
        """
        if isinstance(clients, bool) or not isinstance(clients, int) or clients < 1:
            raise InputError(f"clients is {clients!r}, but must be a whole number of 1 or more")
        self.state = State(copy.deepcopy(model))
        self._federation, self._test, self._folder = federation, test, folder
        self._on_round, self._timeout = on_round, timeout
        self._config = federation.config(model, ()) | {"clients": clients}
        self._roster = Roster(clients, Plan.of(model).fingerprint.hex(), wait)
        self._answered: dict[int, int] = {}  # node -> the last round in which it answered
        self._row: dict[str, Any] = {}
        if folder is not None:
            if states.find(folder) is None:
                states.save(self.state, folder, self._config)
            self.state = states.load(folder, model, self._config)

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int | None = None,
        timeout: float | None = None,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run all rounds that are left; the arguments are those of Flower's strategies.

        Args:
            initial_arrays: another model to start from, as ``arrays`` gives it.
            num_rounds: rounds in all; default the federation's.
            timeout: of a round; default the strategy's.
            train_config: sent along to the nodes.
            evaluate_config: not used: the model is evaluated by the server.
            evaluate_fn: called with the number of finished rounds and the model's arrays, after each round.

        Raises:
            InputError: a round has too few usable updates; the last good model stays in the folder.
        """
        if initial_arrays is not None and self.state.round == 0:
            plan = Plan.of(self.state.model)
            self.state = State(wire.decode(records.message_of(initial_arrays), plan).put(self.state.model))
        self.summary()
        result = Result()
        rounds = self._federation.rounds if num_rounds is None else num_rounds
        patience = self._timeout if timeout is None else timeout
        while self.state.round < rounds:
            number, started = self.state.round + 1, time.perf_counter()
            messages = self.configure_train(number, self.arrays, train_config or ConfigRecord(), grid)
            arrays, metrics = self.aggregate_train(number, stream(grid, messages, patience))
            self.state.history[-1]["seconds"] = time.perf_counter() - started
            log(INFO, "round %s of %s: %s", number, rounds, self.state.history[-1])
            result.arrays = arrays
            result.train_metrics_clientapp[number] = metrics
            found = None if evaluate_fn is None else evaluate_fn(number, arrays)
            if found is not None:
                result.evaluate_metrics_serverapp[number] = found
            if self._on_round is not None:
                self._on_round(self.state)
        result.arrays = self.arrays
        return result

    @property
    def arrays(self) -> ArrayRecord:
        """The model as a record; ``flower.records.message_of`` and ``decode`` read it."""
        return records.arrays_of(Broadcast.of(self.state, "float32").whole)

    def summary(self) -> None:
        """Log what will be done."""
        log(INFO, "%s, from round %s", self._federation, self.state.round + 1)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """The messages of a round, one for each node that it asks.

        Args:
            server_round: counted from 1.
            arrays: not looked at: the model is the state's.
            config: sent along.

        Raises:
            InputError: too few nodes, or nodes that cannot take part.
        """
        number = server_round - 1
        least = getattr(self._federation.strategy, "min_fit", 1)
        nodes = self._roster.gather(grid, least)
        asked = self._federation.asked(number, self._roster.names)
        self._sent = Broadcast.of(self.state, self._federation.dtype)
        plan = Plan.of(self.state.model)
        received = wire.decode(self._sent.whole, plan).put(copy.deepcopy(self.state.model))
        self._base: Topology = topology_of(received)
        there = [client for client in asked if client in nodes]
        self._asked = {nodes[client].number: client for client in there}
        examples = {client: nodes[client].examples for client in there}
        self._under_way: Round = self._federation.strategy.begin(received, number, examples=examples)
        self._row = {
            "round": number, "clients": len(asked), "failed": 0, "lost": len(asked) - len(there),
            "upload_bytes": 0, "download_bytes": 0,
        }  # fmt: skip
        found = []
        for node in self._asked:
            message = self._sent.to(self._answered.get(node) == number - 1)
            self._row["download_bytes"] += len(message)
            content = RecordDict({records.ARRAYS: records.arrays_of(message), records.CONFIG: config})
            found.append(Message(content, dst_node_id=node, message_type="train", group_id=str(number)))
        return found

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord, MetricRecord]:
        """Merge the replies, in the order of the clients, as they arrive; then the round is over and saved.

        Raises:
            InputError: too few usable updates.
        """
        waiting: dict[str, Message] = {}
        order = list(self._asked.values())
        for reply in replies:
            client = self._asked.get(reply.metadata.src_node_id)
            if (
                client is None
            ):  # where a node has left, Flower answers in its own name: it counts as lost below
                log(WARNING, "a node does not answer: %s", reply.error.reason if reply.has_error() else "?")
                continue
            waiting[client] = reply
            while order and order[0] in waiting:
                self._take(order[0], waiting.pop(order.pop(0)))
        for client in order:
            if client in waiting:
                self._take(client, waiting.pop(client))
            else:
                self._row["lost"] += 1
        try:
            model = self._under_way.finish()
        except InputError as error:
            kept = None if self._folder is None else states.find(self._folder)
            raise InputError(f"{error}" + ("" if kept is None else f"; it is in '{kept}'")) from error
        row = self._row | tally(self._under_way) | describe(model, self._test)
        self.state = State(model, self.state.model, [*self.state.history, row])
        if self._folder is not None:
            states.save(self.state, self._folder, self._config)
        return self.arrays, MetricRecord({k: v for k, v in row.items() if isinstance(v, int | float)})

    def _take(self, client: str, reply: Message) -> None:
        """Give one reply to the round under way."""
        number = self._row["round"]
        if reply.has_error():
            self._row["lost"] += 1
            log(WARNING, "client %s does not answer: %s", client, reply.error.reason)
            return
        node = reply.metadata.src_node_id
        told = reply.content.get(records.CONFIG)
        if told is not None:
            self._answered.pop(node, None)
            reason, sentence = str(told.get("reason")), str(told.get("error"))
            log(WARNING, "client %s: %s", client, sentence)
            self._row["failed"] += reason == "failed"
            self._under_way.door.rejected.append((client, reason, sentence))
            return
        try:
            message = records.message_of(reply.content.get(records.ARRAYS, ArrayRecord()))
        except Rejected as error:
            self._under_way.door.turn_away(client, error)
            return
        self._answered[node] = number
        self._row["upload_bytes"] += len(message)
        if self._federation.is_lost(number, client):
            self._row["lost"] += 1
            return
        if receive(self._under_way, message, client, self._base) is not None:
            log(WARNING, "client %s is turned away: %s", *self._under_way.door.rejected[-1][::2])

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Nothing: the server evaluates the model itself."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> None:
        """Nothing, as nothing was asked."""


def stream(
    grid: Grid, messages: Iterable[Message], timeout: float, interval: float = 0.25
) -> Iterator[Message]:
    """Send messages, and give back each reply when it is there, until all are or the time is up.

    Args:
        timeout: seconds.
        interval: seconds between looks.
    """
    open_ids = set(grid.push_messages(messages))
    until = time.monotonic() + timeout
    while open_ids:
        replies = list(grid.pull_messages(open_ids))
        for reply in replies:
            open_ids.discard(reply.metadata.reply_to_message_id)
            yield reply
        if replies:
            continue  # what has arrived is taken, even after the time
        left = until - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(interval, left))
