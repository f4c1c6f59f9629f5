"""Pruning: a score decides which connections stay, in one shot or many, before training or between rounds."""

from regraft.prune.apply import apply
from regraft.prune.candidates import candidates
from regraft.prune.collapse import LayerCollapseWarning
from regraft.prune.controls import CONTROLS, Control, control_by_name, shuffled
from regraft.prune.fields import receptive_fields
from regraft.prune.inits import (
    INITS,
    Bimodal,
    Init,
    Reinitialised,
    ScoresAsWeights,
    init_by_name,
    initialise,
    permuted,
)
from regraft.prune.iterative import Ticket, Train, iterative
from regraft.prune.paths import PATHS, Path
from regraft.prune.rounds import Round
from regraft.prune.upfront import Shot, upfront

__all__ = [
    "CONTROLS",
    "INITS",
    "PATHS",
    "Bimodal",
    "Control",
    "Init",
    "LayerCollapseWarning",
    "Path",
    "Reinitialised",
    "Round",
    "ScoresAsWeights",
    "Shot",
    "Ticket",
    "Train",
    "apply",
    "candidates",
    "control_by_name",
    "init_by_name",
    "initialise",
    "iterative",
    "permuted",
    "receptive_fields",
    "shuffled",
    "upfront",
]
