"""A Flower app: one sparse network, trained on the digits of many nodes.

Replace ``model`` and ``samples`` by your own; what a node reads never leaves it.
"""

from __future__ import annotations

from flwr.app import Context
from torch import nn

from regraft import data, models, sparsify
from regraft.data import Split
from regraft.federated import IID, Federation, Local, SparseMerge, partitioned
from regraft.federated.flower import FlowerStrategy, client_app, server_app
from regraft.train import seeds


def federation(context: Context) -> Federation:
    """What server and nodes agree on."""
    config, rounds = context.run_config, int(context.run_config["rounds"])
    return Federation(
        SparseMerge(density="keep", min_fit=int(config["least"])),
        Local(epochs=int(config["epochs"]), lr=float(config["lr"]), batch_size=20, rounds=rounds),
        rounds=rounds,
        seed=int(config["seed"]),
    )


def model(context: Context) -> nn.Module:
    """The same on all machines, as the seed is."""
    generator = seeds.stream(int(context.run_config["seed"]), "network")
    network = models.build("mlp:64-128-64-10", generator=generator)
    return sparsify(network, float(context.run_config["density"]), generator=generator)


def samples(context: Context) -> Split:
    """This node's share of the digits."""
    digits, nodes = data.load("digits", flatten=True), int(context.run_config["nodes"])
    parts = partitioned(digits.train, IID(), nodes, seeds.stream(0, "nodes"))
    return parts[int(context.node_config["partition-id"])]


def strategy(context: Context) -> FlowerStrategy:
    """What the server does."""
    config = context.run_config
    return FlowerStrategy(
        model(context),
        federation(context),
        clients=int(config["nodes"]),
        test=data.load("digits", flatten=True).test,
        folder=config["folder"] or None,
        wait=float(config["wait"]),
        timeout=float(config["timeout"]),
    )


client = client_app(model, samples, federation)
server = server_app(strategy)
