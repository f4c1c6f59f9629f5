"""How much each connection matters: (model, probe) -> {weight name: vector}, higher is kept.

The vector of a weight lines up with its ``index``. Selection (``regraft.select``) turns scores into the
entries that stay.
"""

from regraft.scores.basic import magnitude, random
from regraft.scores.composed import Inverted, Stacked
from regraft.scores.connectivity import Connectivity
from regraft.scores.features import FOUR, TEN, features
from regraft.scores.learned import Example, Learned, fit, targets
from regraft.scores.named import SCORES, by_name
from regraft.scores.parse import parse, text_of
from regraft.scores.protocol import Score, Vectors, weights_of
from regraft.scores.regressors import REGRESSORS, Perceptron, Regressor
from regraft.scores.saliency import Saliency, grasp, grasp_magnitude, snip, synflow, variance_flow

__all__ = [
    "FOUR", "REGRESSORS", "SCORES", "TEN", "Connectivity", "Example", "Inverted", "Learned", "Perceptron",
    "Regressor", "Saliency", "Score", "Stacked", "Vectors", "by_name", "features", "fit", "grasp",
    "grasp_magnitude", "magnitude", "parse", "random", "snip", "synflow", "targets", "text_of",
    "variance_flow", "weights_of",
]  # fmt: skip
