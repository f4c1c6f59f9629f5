"""Alignment by name, of models and of files."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from regraft import checkpoint, graph
from regraft.errors import unknown
from regraft.merging.align.activations import ActivationMatching
from regraft.merging.align.scale import normalised
from regraft.merging.align.together import Align
from regraft.merging.align.weights import WeightMatching
from regraft.merging.networks import Source
from regraft.probe import Probe

ALIGNMENTS: dict[str, Align] = {"weights": WeightMatching(), "activations": ActivationMatching()}
"""Alignments by name."""


def by_name(align: str | Align) -> Align:
    """An alignment from its name, with its defaults; anything else as it is.

    >>> by_name("weights")
    WeightMatching(restarts=3, max_passes=50, tolerance=0.001, to='first', rounds=20, normalise=True)

    Raises:
        InputError: an unknown name.
    """
    if not isinstance(align, str):
        return align
    if align not in ALIGNMENTS:
        raise unknown("alignment", align, ALIGNMENTS)
    return ALIGNMENTS[align]


def aligned(
    networks: Sequence[Source],
    align: str | Align | None,
    normalise: bool,
    probe: Probe | None,
    generator: torch.Generator | None,
) -> list[nn.Module]:
    """Copies of the networks in one numbering of their units, and at their canonical scale where
    ``normalise`` asks for it. Files are read into memory.

    Raises:
        InputError, MismatchError: as ``align`` and ``normalise_scale``.
        FileError: a file cannot be read.
    """
    models = [n if isinstance(n, nn.Module) else checkpoint.load(n) for n in networks]
    if align is not None:
        models = by_name(align)(models, probe=probe, generator=generator)
    if normalise:
        shape = None if probe is None else probe.input_shape
        models = normalised(models, graph.trace(models[0], shape))
    return models
