"""A study out of plans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from regraft.data.embedded import LOADERS
from regraft.studies.grid.cells import train
from regraft.studies.grid.plan import Plan, config_of
from regraft.studies.grid.shown import report
from regraft.studies.study import Cell, Preset, Study


def build(
    name: str, title: str, about: str, plans: Mapping[str, Plan], costs: Mapping[str, str],
    reference: Mapping[str, Any] | None = None,
) -> Study:  # fmt: skip
    """The study of a grid.

    Args:
        name, title, about: as a ``Study`` has them.
        plans: what is trained at each preset.
        costs: what to expect of presets.
        reference: values of options; each point is compared with the one that has these values and is its
            equal in the other options. None: the first value of the first option that is text, else the first
            point.

    Raises:
        InputError: the name is none of a study's.
    """
    first = next(iter(plans.values()))
    presets = {
        preset: Preset(
            plan.plain(), costs.get(preset) or "not measured", tuple(sorted(plan.data() - set(LOADERS)))
        )
        for preset, plan in plans.items()
    }
    varied = ", ".join(first.grid) or "nothing"
    return Study(
        name, title, f"nothing published: a grid over {varied}", about, cells, presets,
        report=partial(report, title=title, plans=plans, reference=reference),
    )  # fmt: skip


def cells(settings: Mapping[str, Any]) -> Iterator[Cell]:
    """A training for each point of the grid and each seed."""
    plan = Plan(settings["base"], settings["grid"], settings["seeds"])
    for point in plan.points():
        for seed in plan.seeds:
            yield Cell(train, config_of({**plan.base, **dict(point)}, seed))
