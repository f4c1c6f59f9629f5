"""Topologies that change while a network trains: drop some connections, grow as many elsewhere."""

from regraft.evolve.by_gradient import Gradient, InnerProduct
from regraft.evolve.context import Context, Drop, Grow, Growth, Watching
from regraft.evolve.drop import DROPS, magnitude, signed_magnitude
from regraft.evolve.evolution_step import EvolutionStep
from regraft.evolve.evolver import Evolve
from regraft.evolve.grow import INITS, Init, RandomGrowth, random
from regraft.evolve.grow_rules import GROWS
from regraft.evolve.methods import METHODS, Method, method
from regraft.evolve.normalise import RowNormalise, normalise_rows, row_norms
from regraft.evolve.optimizer_state import remap_state
from regraft.evolve.retopology import follow, set_topology
from regraft.evolve.shrink import Shrink, ShrinkStep
from regraft.evolve.thresholds import LearnedThresholds, ThresholdStep

__all__ = [
    "DROPS",
    "GROWS",
    "INITS",
    "METHODS",
    "Context",
    "Drop",
    "EvolutionStep",
    "Evolve",
    "Gradient",
    "Grow",
    "Growth",
    "Init",
    "InnerProduct",
    "LearnedThresholds",
    "Method",
    "RandomGrowth",
    "RowNormalise",
    "Shrink",
    "ShrinkStep",
    "ThresholdStep",
    "Watching",
    "follow",
    "magnitude",
    "method",
    "normalise_rows",
    "random",
    "remap_state",
    "row_norms",
    "set_topology",
    "signed_magnitude",
]
