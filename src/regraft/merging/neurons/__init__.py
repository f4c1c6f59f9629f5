"""Neuron selection: networks side by side, of which only the best units stay. No alignment, no training."""

from regraft.merging.neurons.ensemble import Ensemble
from regraft.merging.neurons.scores import UNIT_SCORES, UnitScore, activity, magnitude, outgoing, random
from regraft.merging.neurons.select import select_neurons

__all__ = [
    "UNIT_SCORES",
    "Ensemble",
    "UnitScore",
    "activity",
    "magnitude",
    "outgoing",
    "random",
    "select_neurons",
]
