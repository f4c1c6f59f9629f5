"""A ``Grid`` whose nodes live in this process: each message goes through Flower's records and a ClientApp."""

from __future__ import annotations

from types import SimpleNamespace

from flwr.app import Context, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity


class Loopback:
    """Nodes 100, 101, ... with the partition-ids 0, 1, ...

    Attributes:
        order: of the replies: 1 or -1, as the nodes answer first to last or last to first.
        dead: nodes that never answer.
        broken: nodes that Flower gives up when they are sent a message of the type ``breaks``.
        spoil: changes replies on their way.
    """

    def __init__(self, app, nodes, order=1):
        self.app, self.order = app, order
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1  # messages are stamped
        self.nodes = {100 + i: context(i, nodes) for i in range(nodes)}
        self.dead, self.broken, self.spoil = set(), set(), lambda node, reply: reply
        self.breaks = "train"
        self.sent, self._replies, self._count = [], {}, 0

    def get_node_ids(self):
        return list(self.nodes)

    def push_messages(self, messages):
        ids = []
        for message in list(messages)[:: self.order]:
            self._count += 1
            message.metadata.__dict__["_message_id"] = str(self._count)
            node = message.metadata.dst_node_id
            ids.append(str(self._count))
            self.sent.append(message)
            if node in self.dead and message.metadata.message_type == "train":
                continue
            if node in self.broken and message.metadata.message_type == self.breaks:
                reply = Message(Error(code=3, reason="the node is gone"), reply_to=message)
                reply.metadata.__dict__["_src_node_id"] = 1  # Flower answers for it
            else:
                reply = self.spoil(node, self.app(message, self.nodes[node]))
            self._replies[str(self._count)] = reply
        return ids

    def pull_messages(self, message_ids):
        """One at a time, so that merging as they arrive is seen to work."""
        for number in sorted(message_ids, key=int):
            if number in self._replies:
                return [self._replies.pop(number)]
        return []

    def send_and_receive(self, messages, *, timeout=None):
        ids = self.push_messages(messages)
        return [self._replies.pop(number) for number in ids if number in self._replies]


def context(partition, nodes):
    config = {} if partition is None else {"partition-id": partition, "num-partitions": nodes}
    return Context(
        run_id=1, node_id=100 + (partition or 0), node_config=config, state=RecordDict(), run_config={}
    )


def train_messages(grid):
    return [
        SimpleNamespace(node=m.metadata.dst_node_id, content=m.content)
        for m in grid.sent
        if m.metadata.message_type == "train"
    ]
