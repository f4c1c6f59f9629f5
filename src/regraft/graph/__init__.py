"""Which units of a network belong together, and what can be done with them as wholes."""

from regraft.graph.activations import activations
from regraft.graph.check import check
from regraft.graph.concatenate import concatenate
from regraft.graph.groups import Graph, Group, Heads, Kind, Slot
from regraft.graph.take import take
from regraft.graph.trace import trace

__all__ = ["Graph", "Group", "Heads", "Kind", "Slot", "activations", "check", "concatenate", "take", "trace"]
