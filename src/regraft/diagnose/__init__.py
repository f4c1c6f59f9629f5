"""What a pruning left: paths through the network, dead layers, overlap of tickets, weights, gradient flow."""

from regraft.diagnose.distributions import Distribution, distribution, kept_values
from regraft.diagnose.gradients import GradientFlow, gradient_flow
from regraft.diagnose.overlap import LayerOverlap, Overlap, overlap
from regraft.diagnose.paths import Connectivity, LayerPaths, connectivity

__all__ = [
    "Connectivity",
    "Distribution",
    "GradientFlow",
    "LayerOverlap",
    "LayerPaths",
    "Overlap",
    "connectivity",
    "distribution",
    "gradient_flow",
    "kept_values",
    "overlap",
]
