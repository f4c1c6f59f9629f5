"""The methods of thesis 5 as cells: a score, a schedule, and initial values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from regraft.studies.papers.pruning import network, steps
from regraft.studies.study import Cell

MAGNITUDE, SNIP, GRASP, SYNFLOW = SCORES = ("magnitude", "snip", "grasp", "synflow")
"""The four that the thesis combines."""

NAMES = {"random": "random", "magnitude": "Mag", "snip": "SNIP", "grasp": "GraSP", "synflow": "SynFlow"}
INITS = {
    "scores:snip": "SNIP", "bimodal": "bi-modal", "scores:synflow": "SynFlow", "scores:grasp": "GraSP",
}  # fmt: skip
"""The initial values of section 5.4 beside the standard ones."""


@dataclass(frozen=True)
class Method:
    """How a sparse network is found.

    Attributes:
        score: as ``regraft.scores.parse`` reads it.
        schedule: USS, UMS (before training, in one shot or many), ISS or IMS (in rounds of training).
        init: initial values, ``"standard"`` or a name of ``prune.initialise``.
    """

    score: str
    schedule: str = "UMS"
    init: str = network.STANDARD

    @property
    def name(self) -> str:
        """As the thesis writes it.

        >>> Method("stacked(snip, magnitude)", init="scores:synflow").name
        'SNIP/Mag on SynFlow (UMS)'
        """
        on = "" if self.init == network.STANDARD else f" on {INITS[self.init]}"
        return f"{score_name(self.score)}{on} ({self.schedule})"

    @property
    def wanted(self) -> dict[str, Any]:
        """What its rows have: for ``Rows.where``."""
        return {"kind": "ticket", "score": self.score, "schedule": self.schedule, "init": self.init}

    def cell(self, settings: Mapping[str, Any], density: float, seed: int) -> Cell:
        """The cell of one network.

        Args:
            settings: of the preset; ``shots`` before training, ``shots_in_rounds`` and ``rounds``.
        """
        rounds = settings["rounds"] if self.schedule[0] == "I" else 0
        many = settings["shots_in_rounds"] if rounds else settings["shots"]
        shots = many if self.schedule[1] == "M" else 1
        config = {
            **network.setting(settings), "score": self.score, "init": self.init, "density": density,
            "seed": seed, "shots": shots, "rounds": rounds, "revive": shots > 1 and self._revives,
        }  # fmt: skip
        return Cell(steps.ticket, config, (dense(settings, seed, self.init),) if rounds else ())

    @property
    def _revives(self) -> bool:
        """SNIP differentiates by the mask, so that what a shot cut has a score again in the next, and so has
        the magnitude of SNIP; the other scores are products with the cut weight, 0."""
        parts = parts_of(self.score)
        return parts[-1] == "snip" or parts == ["snip", "magnitude"]


def cells(settings: Mapping[str, Any], methods: Iterable[Method]) -> list[Cell]:
    """The cells of several methods over a preset's grid: pairs of a density and its seeds."""
    methods = list(methods)
    return [
        method.cell(settings, density, seed)
        for density, seeds in settings["grid"]
        for seed in seeds
        for method in methods
    ]


def dense(settings: Mapping[str, Any], seed: int, init: str = network.STANDARD) -> Cell:
    """The cell of the whole network."""
    return Cell(steps.dense, {**network.setting(settings), "init": init, "seed": seed})


def compared(settings: Mapping[str, Any], methods: list[Method], density: float, seed: int) -> Cell:
    """The cell that compares what several methods found."""
    tickets = tuple(method.cell(settings, density, seed) for method in methods)
    return Cell(steps.compare, {**network.setting(settings), "density": density, "seed": seed}, tickets)


def stack(first: str, second: str) -> str:
    """The text of a stacked score.

    >>> stack("magnitude", "synflow")
    'stacked(magnitude, synflow)'
    """
    return f"stacked({first}, {second})"


def score_name(score: str) -> str:
    """As the thesis writes it, a stack with a slash.

    >>> score_name("stacked(grasp, magnitude)"), score_name("snip")
    ('GraSP/Mag', 'SNIP')
    """
    return "/".join(NAMES.get(part, part) for part in parts_of(score))


def parts_of(score: str) -> list[str]:
    """The scores of a stack, or the one score.

    >>> parts_of("stacked(grasp, magnitude)")
    ['grasp', 'magnitude']
    """
    return score.removeprefix("stacked(").removesuffix(")").split(", ")
