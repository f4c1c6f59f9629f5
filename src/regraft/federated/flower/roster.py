"""``Roster``: which node is which client."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from logging import INFO, WARNING

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from regraft.errors import InputError
from regraft.federated import wire
from regraft.federated.flower import records

GREETING = 300.0  # seconds within which a node says who it is; Flower gives up one that left before


@dataclass(frozen=True)
class Node:
    """A node that can take part.

    Attributes:
        number: Flower's.
        examples: how many samples it has.
    """

    number: int
    examples: int


class Roster:
    """Asks every new node once who it is; nodes of another version or architecture are left out by name.

    Attributes:
        names: of all clients that there should be, in order.
        refused: by node, why it cannot take part.
    """

    def __init__(self, clients: int, architecture: str, wait: float) -> None:
        """No node yet.

        Args:
            clients: how many there should be.
            architecture: fingerprint of the server's model.
            wait: seconds that the first ``gather`` waits for all of them.
        """
        self.names = [str(i) for i in range(clients)]
        self.refused: dict[int, str] = {}
        self._architecture, self._wait = architecture, wait
        self._known: dict[int, tuple[str, Node]] = {}

    def gather(self, grid: Grid, least: int = 1) -> dict[str, Node]:
        """Clients that are there, by name. The first call waits for all; later ones take who is there.

        Raises:
            InputError: fewer than ``least`` after the waiting.
        """
        until = time.monotonic() + self._wait
        while True:
            present = set(grid.get_node_ids())
            self._ask(grid, sorted(present - set(self._known) - set(self.refused)))
            found = {name: node for name, node in self._known.values() if node.number in present}
            if len(found) == len(self.names) or time.monotonic() >= until:
                break
            time.sleep(min(1.0, max(0.0, until - time.monotonic())))
        self._wait = 0.0
        if len(found) < least:
            raise InputError(self._too_few(len(found), least))
        return found

    def _too_few(self, there: int, least: int) -> str:
        why = "; ".join(list(self.refused.values())[:3])
        return (
            f"{there} nodes can take part, but a round needs {least}: start more nodes"
            + (f" (left out: {why})" if why else "")
        )  # fmt: skip

    def _ask(self, grid: Grid, nodes: Iterable[int]) -> None:
        content = RecordDict({records.CONFIG: ConfigRecord({"format": wire.VERSION})})
        questions = [Message(content, dst_node_id=node, message_type="query") for node in nodes]
        for reply in grid.send_and_receive(questions, timeout=GREETING) if questions else ():
            if reply.has_error():  # it has left, or its app cannot start: it is asked again in the next round
                log(WARNING, "a node does not say who it is: %s", reply.error.reason)
                continue
            node = reply.metadata.src_node_id
            try:
                name, examples = self._introduced(reply)
            except InputError as error:
                self.refused[node] = str(error)
                log(WARNING, "node %s is left out: %s", node, error)
                continue
            self._known[node] = name, Node(node, examples)
            log(INFO, "node %s is client '%s' with %s samples", node, name, examples)

    def _introduced(self, reply: Message) -> tuple[str, int]:
        """A node's name and its number of samples."""
        told = records.config_of(reply.content)
        if "error" in told:
            raise InputError(str(told["error"]))
        name, examples = str(told.get("client")), told.get("examples")
        if told.get("format") != wire.VERSION:
            raise InputError(
                f"client '{name}' writes format {told.get('format')}, but the server reads {wire.VERSION}: "
                "install the same version of regraft"
            )
        if told.get("architecture") != self._architecture:
            raise InputError(
                f"client '{name}' trains another architecture than the server: both must build the same model"
            )
        if name not in self.names or not isinstance(examples, int):
            raise InputError(
                f"client '{name}' is none of 0 to {len(self.names) - 1}: give each node such a partition-id"
            )
        return name, examples
