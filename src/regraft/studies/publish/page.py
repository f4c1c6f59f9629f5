"""The page of one study."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from regraft.errors import InputError
from regraft.report import Fact, Link, Results, Table
from regraft.report.page import MADE
from regraft.report.schema import check
from regraft.studies.claims import NOT_REPRODUCED, REPRODUCED
from regraft.studies.publish.published import Published
from regraft.studies.publish.words import COLUMNS, counted, duration, marked, measured, p_value, partial

UP: Link = {"text": "All studies", "href": "index.html"}

AGAINST = "Published against measured"

NOTE = (
    "Measured: the mean over seeds, plus or minus half of its 95 % interval, and in brackets the number of "
    "samples; of an ordering, the difference. p: two-sided, corrected (Holm) over the study's orderings. "
    "Out of scale: the preset is too small to be held against the published number, or the cells are missing."
)


def page(found: Published, up: Link | None = UP) -> Results:
    """Published against measured, the study's own tables and figures, what differs, how it was made.

    Args:
        up: the link at the top; None for a page that stands alone.

    Raises:
        InputError: the study's report is not of the form that a page can show.
    """
    study, preset = found.study, found.study.presets[found.rows.preset]
    own = own_report(found)
    result: Results = {
        "title": own.get("title", study.title),
        "subtitle": f"Reproduces {study.reproduces}. Preset {found.rows.preset}.",
        "summary": own.get("summary") or summary(found),
        "about": study.about,
        "facts": [*facts(found), *own.get("facts", [])],
        "tables": [*against(found), *(_sortable(t) for t in own.get("tables", []))],
        "command": f"{found.command('run')}\n{found.command('report')}",
        "configuration": {
            "study": study.name,
            "preset": found.rows.preset,
            "cost of the preset": preset.cost,
            "data": ", ".join(preset.data) or "none but what regraft brings",
            **{k: v for k, v in preset.settings.items() if not isinstance(v, Mapping)},
            **{
                f"{k}: {i}": w
                for k, v in preset.settings.items()
                if isinstance(v, Mapping)
                for i, w in v.items()
            },
            **own.get("configuration", {}),
        },
        "versions": {**found.versions, **own.get("versions", {})},
    }
    if up is not None:
        result["up"] = up
    notice = partial(found.done, found.cells, found.failed, found.command("run"))
    if notice:
        result["notice"] = " ".join(filter(None, [notice, own.get("notice")]))
    remarks = list(own.get("remarks", []))
    if study.differs:
        remarks.insert(0, {"title": "What differs from the original, and why", "points": [*study.differs]})
    result["remarks"] = remarks
    if found.done:
        result["tables"].append(_work(found))
    for name, part in own.items():
        if name not in result:
            result[name] = part  # type: ignore[literal-required]
    return result


def own_report(found: Published) -> Results:
    """The study's own tables and figures, checked.

    Where cells are missing and the study's report stumbles over that, there are none.

    Raises:
        InputError: the report is not of the form that a page can show.
    """
    try:
        own = found.study.report(found.rows)
    except (LookupError, ValueError, ArithmeticError, TypeError) as error:
        if not found.rows.missing:
            raise InputError(
                f"the report of the study '{found.study.name}' failed with {type(error).__name__}: {error}"
            ) from error
        return {"notice": "Its tables and figures need more cells than are done."}
    try:
        return check(own)
    except InputError as error:
        raise InputError(f"the report of the study '{found.study.name}': {error}") from error


def summary(found: Published) -> str:
    """How many claims hold, in a sentence."""
    counts = found.counts
    judged = counts[REPRODUCED] + counts[NOT_REPRODUCED]
    if not judged:
        return "None of its claims can be judged yet at this preset."
    return f"{counts[REPRODUCED]} of the {judged} claims that can be judged at this preset are reproduced."


def facts(found: Published) -> list[Fact]:
    """The verdicts and the cells, counted."""
    made = counted(found.counts) if found.verdicts else []
    failed = f", {found.failed:,} failed" if found.failed else ""
    made.append({
        "label": "Cells done", "value": f"{found.done:,} of {found.cells:,}",
        "note": f"{len(found.rows):,} rows in {duration(found.seconds)}{failed}",
    })  # fmt: skip
    return made


def against(found: Published) -> list[Table]:
    """Published and measured numbers side by side; no table where nothing was published."""
    if not found.verdicts:
        return []
    rows: list[list[Any]] = [
        [v.claim.text, v.claim.source, v.published, measured(v), p_value(v), marked(v), v.why]
        for v in found.verdicts
    ]
    return [{
        "title": "Claims", "heading": AGAINST, "columns": [*COLUMNS], "rows": rows, "note": NOTE,
        "sortable": True,
    }]  # fmt: skip


def _sortable(table: Table) -> Table:
    return {**table, "sortable": True}


def _work(found: Published) -> Table:
    """How long each kind of step took."""
    by_step: dict[str, list[float]] = {}
    for result in found.rows.results:
        by_step.setdefault(result.step, []).append(result.seconds)
    rows: list[list[Any]] = [
        [step, len(times), statistics.median(times), max(times), sum(times)]
        for step, times in by_step.items()
    ]
    return {
        "title": "Work", "heading": MADE, "sortable": True, "rows": rows,
        "columns": ["Step", "Cells", "Seconds, median", "Seconds, longest", "Seconds, all"],
    }  # fmt: skip
