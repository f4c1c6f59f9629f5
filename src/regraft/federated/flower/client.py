"""The side of the nodes: ``client_app``."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from regraft.data import Split
from regraft.errors import InputError
from regraft.federated import wire
from regraft.federated.client import local_round
from regraft.federated.embedded import Federation
from regraft.federated.flower import records
from regraft.federated.trust import Rejected
from regraft.federated.update import Plan, topology_of


def client_app(
    model_of: Callable[[Context], nn.Module],
    data_of: Callable[[Context], Split],
    federation: Federation | Callable[[Context], Federation],
) -> ClientApp:
    """A Flower ``ClientApp`` that trains and evolves the server's network on the node's samples.

    A node is called by its ``partition-id``, which ``--node-config`` gives it. The topology that it was sent
    last stays in its context's state, so that the server need only send changes. What goes wrong in training
    is told to the server in a sentence, and the app lives on.

    Args:
        model_of: a model of the server's architecture; its values do not matter.
        data_of: the node's samples.
        federation: the server's; ``local``, ``dtype`` and ``seed`` are read.

    >>> from regraft import data, models, sparsify
    >>> from regraft.federated import Local, SparseMerge
    >>> app = client_app(
    ...     lambda context: sparsify(models.build("mlp:64-32-10"), density=0.2),
    ...     lambda context: data.load("digits", flatten=True).train,
    ...     Federation(SparseMerge(), Local()))
    >>> type(app).__name__
    'ClientApp'
    """
    app = ClientApp()

    def settings(context: Context) -> Federation:
        return federation if isinstance(federation, Federation) else federation(context)

    @app.query()
    def introduce(message: Message, context: Context) -> Message:
        """Who this is, so that the server can ask clients by name and in order."""
        try:
            told = {
                "client": name_of(context),
                "examples": len(data_of(context)),
                "format": wire.VERSION,
                "architecture": Plan.of(model_of(context)).fingerprint.hex(),
            }
        except InputError as error:
            told = {"error": str(error)}
        return Message(RecordDict({records.CONFIG: ConfigRecord(told)}), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        """One round: decode, train and evolve, encode."""
        try:
            content = _round(message, context, model_of(context), data_of(context), settings(context))
        except InputError as error:
            reason = error.reason if isinstance(error, Rejected) else "failed"
            told = ConfigRecord({"reason": reason, "error": str(error)})
            content = RecordDict({records.CONFIG: told})
        return Message(content, reply_to=message)

    return app


def name_of(context: Context) -> str:
    """The node's name: its ``partition-id``.

    Raises:
        InputError: the node has none.
    """
    if "partition-id" not in context.node_config:
        raise InputError(
            "the node has no partition-id: start it with --node-config 'partition-id=0 num-partitions=4'"
        )
    return str(context.node_config["partition-id"])


def _round(
    message: Message, context: Context, model: nn.Module, data: Split, federation: Federation
) -> RecordDict:
    client, plan = name_of(context), Plan.of(model)
    sent = records.message_of(message.content[records.ARRAYS])
    update = wire.decode(sent, plan, records.remembered(context.state, model))
    received = update.put(model)
    records.remember(context.state, received)
    trained = local_round(
        received, data, federation.local, round=update.round, client=client, seed=federation.seed
    )
    answer = wire.encode(trained, plan, federation.dtype, topology_of(received))
    # Flower's own strategies and tools look for this metric
    metrics = MetricRecord({"num-examples": len(data)})
    return RecordDict({records.ARRAYS: records.arrays_of(answer), "metrics": metrics})
