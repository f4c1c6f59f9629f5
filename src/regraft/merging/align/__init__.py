"""Alignment: networks of one architecture in one numbering of their hidden units, at one scale."""

from regraft.merging.align.activations import ActivationMatching
from regraft.merging.align.homogeneous import Scalable, scalable
from regraft.merging.align.scale import normalise_scale
from regraft.merging.align.together import Align, Reference
from regraft.merging.align.weights import WeightMatching

__all__ = [
    "ActivationMatching",
    "Align",
    "Reference",
    "Scalable",
    "WeightMatching",
    "normalise_scale",
    "scalable",
]
