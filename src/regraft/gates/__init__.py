"""Gates that learn which units of several networks a student of their size needs (thesis 2)."""

from regraft.gates.api import Student, merge
from regraft.gates.compress import best_units, compress
from regraft.gates.gated import Gated, gate_sizes
from regraft.gates.greedy import GreedyStudent, merge_greedily
from regraft.gates.hard_concrete import HardConcrete
from regraft.gates.module import Gates
from regraft.gates.penalty import GatesWarning, GroupGates, Rising, decided, l0_loss
from regraft.gates.stages import Evolution, set_evolution
from regraft.gates.tournament import Match, Tournament, tournament

__all__ = [
    "Evolution",
    "Gated",
    "Gates",
    "GatesWarning",
    "GreedyStudent",
    "GroupGates",
    "HardConcrete",
    "Match",
    "Rising",
    "Student",
    "Tournament",
    "best_units",
    "compress",
    "decided",
    "gate_sizes",
    "l0_loss",
    "merge",
    "merge_greedily",
    "set_evolution",
    "tournament",
]
