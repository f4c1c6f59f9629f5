"""Gates that learn which units of several networks a student of their size needs (thesis 2)."""

from regraft.gates.api import GatesWarning, Student, merge, set_evolution
from regraft.gates.compress import best_units, compress
from regraft.gates.gated import Gated, gate_sizes
from regraft.gates.hard_concrete import HardConcrete
from regraft.gates.module import Gates
from regraft.gates.penalty import GroupGates, Rising, decided, l0_loss

__all__ = [
    "Gated",
    "Gates",
    "GatesWarning",
    "GroupGates",
    "HardConcrete",
    "Rising",
    "Student",
    "best_units",
    "compress",
    "decided",
    "gate_sizes",
    "l0_loss",
    "merge",
    "set_evolution",
]
