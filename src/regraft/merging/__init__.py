"""Merging networks of one architecture and different topologies into one of the same sparsity.

The package is called ``merging`` so that ``regraft.merge`` can be the function.
"""

from regraft.merging.align import ActivationMatching, WeightMatching, normalise_scale
from regraft.merging.api import MergedLayer, merge, merge_files
from regraft.merging.combine import RULES, Combine, addition, average, magnitude, nothing, random
from regraft.merging.merger import Merger
from regraft.merging.neurons import Ensemble, select_neurons
from regraft.merging.norms import reestimate_norms
from regraft.merging.repair import repair
from regraft.merging.resparsify import resparsify

__all__ = [
    "RULES",
    "ActivationMatching",
    "Combine",
    "Ensemble",
    "MergedLayer",
    "Merger",
    "WeightMatching",
    "addition",
    "average",
    "magnitude",
    "merge",
    "merge_files",
    "normalise_scale",
    "nothing",
    "random",
    "reestimate_norms",
    "repair",
    "resparsify",
    "select_neurons",
]
