"""Pruning: a score decides which connections stay, in one shot or many, before training or between rounds."""

from regraft.prune.apply import apply
from regraft.prune.candidates import candidates
from regraft.prune.collapse import LayerCollapseWarning
from regraft.prune.iterative import Ticket, Train, iterative
from regraft.prune.paths import PATHS, Path
from regraft.prune.rounds import Round
from regraft.prune.upfront import Shot, upfront

__all__ = [
    "PATHS",
    "LayerCollapseWarning",
    "Path",
    "Round",
    "Shot",
    "Ticket",
    "Train",
    "apply",
    "candidates",
    "iterative",
    "upfront",
]
