"""Federated training on Flower: a ``ClientApp``, a ``Strategy``, a ``ServerApp`` and a simulation.

Needs Flower (extra ``federated``). What a round does is the same as in one process, to the last bit.
"""

from regraft.federated.flower import required  # noqa: F401  says how to install Flower where it is missing
from regraft.federated.flower.client import client_app
from regraft.federated.flower.server import server_app
from regraft.federated.flower.simulation import simulate
from regraft.federated.flower.strategy import FlowerStrategy

__all__ = ["FlowerStrategy", "client_app", "server_app", "simulate"]
