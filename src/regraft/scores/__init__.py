"""How much each connection matters: (model, probe) -> {weight name: vector}, higher is kept.

The vector of a weight lines up with its ``index``. Selection (``regraft.select``) turns scores into the
entries that stay.
"""

from regraft.scores.basic import magnitude, random
from regraft.scores.named import SCORES, by_name
from regraft.scores.protocol import Score, Vectors, weights_of
from regraft.scores.saliency import Saliency, grasp, grasp_magnitude, snip, synflow, variance_flow

__all__ = [
    "SCORES", "Saliency", "Score", "Vectors", "by_name", "grasp", "grasp_magnitude", "magnitude", "random",
    "snip", "synflow", "variance_flow", "weights_of",
]  # fmt: skip
