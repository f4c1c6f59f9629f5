"""Many machines, one sparse network: rounds of local training and evolution, and merging."""

from regraft.federated.client import Local, local_round
from regraft.federated.door import Door
from regraft.federated.embedded import Federation, federate
from regraft.federated.partition import IID, ByClass, Dirichlet, Partition, partitioned
from regraft.federated.robust import Median, TrimmedMean
from regraft.federated.state import State
from regraft.federated.strategy import Round, SelectNeurons, SparseMerge, Strategy, receive
from regraft.federated.trust import REASONS, Rejected, Trust
from regraft.federated.update import Entries, Plan, Update
from regraft.federated.wire import decode, encode

__all__ = [
    "IID",
    "REASONS",
    "ByClass",
    "Dirichlet",
    "Door",
    "Entries",
    "Federation",
    "Local",
    "Median",
    "Partition",
    "Plan",
    "Rejected",
    "Round",
    "SelectNeurons",
    "SparseMerge",
    "State",
    "Strategy",
    "TrimmedMean",
    "Trust",
    "Update",
    "decode",
    "encode",
    "federate",
    "local_round",
    "partitioned",
    "receive",
]
