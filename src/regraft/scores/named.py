"""The scores by name."""

from __future__ import annotations

from regraft.errors import unknown
from regraft.scores.basic import magnitude, random
from regraft.scores.connectivity import Connectivity
from regraft.scores.protocol import Score
from regraft.scores.saliency import grasp, grasp_magnitude, snip, synflow, variance_flow

SCORES: dict[str, Score] = {
    "magnitude": magnitude,
    "random": random,
    "connectivity": Connectivity(),
    "snip": snip,
    "grasp": grasp,
    "grasp-magnitude": grasp_magnitude,
    "synflow": synflow,
    "variance-flow": variance_flow,
}


def by_name(name: str) -> Score:
    """The score called ``name``, or an error with the nearest names.

    >>> by_name("magnitude") is magnitude
    True
    """
    if name not in SCORES:
        raise unknown("score", name, SCORES)
    return SCORES[name]
