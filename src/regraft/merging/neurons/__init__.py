"""Neuron selection: networks side by side, of which only the best units stay. No alignment, no training."""

from regraft.merging.neurons.ensemble import Ensemble
from regraft.merging.neurons.readout import readout_sums, refit_readout
from regraft.merging.neurons.scores import UNIT_SCORES, UnitScore, activity, magnitude, outgoing, random
from regraft.merging.neurons.select import select_neurons
from regraft.merging.neurons.sums import ReadoutSums

__all__ = [
    "UNIT_SCORES",
    "Ensemble",
    "ReadoutSums",
    "UnitScore",
    "activity",
    "magnitude",
    "outgoing",
    "random",
    "readout_sums",
    "refit_readout",
    "select_neurons",
]
