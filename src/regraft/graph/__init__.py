"""Which units of a network belong together, and what can be done with them as wholes."""

from regraft.graph.groups import Graph, Group, Kind, Slot

__all__ = ["Graph", "Group", "Kind", "Slot"]
