"""Many machines, one sparse network: rounds of local training and evolution, and merging."""

from regraft.federated.client import Local, local_round
from regraft.federated.door import Door
from regraft.federated.robust import Median, TrimmedMean
from regraft.federated.strategy import Round, SelectNeurons, SparseMerge, Strategy, receive
from regraft.federated.trust import REASONS, Rejected, Trust
from regraft.federated.update import Entries, Plan, Update
from regraft.federated.wire import decode, encode

__all__ = [
    "REASONS",
    "Door",
    "Entries",
    "Local",
    "Median",
    "Plan",
    "Rejected",
    "Round",
    "SelectNeurons",
    "SparseMerge",
    "Strategy",
    "TrimmedMean",
    "Trust",
    "Update",
    "decode",
    "encode",
    "local_round",
    "receive",
]
