"""The index: every study, what it reproduces, its verdicts, and all claims in one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from regraft import files
from regraft.report import Fact, Results, Table
from regraft.studies.claims import NOT_REPRODUCED, OUT_OF_SCALE, REPRODUCED
from regraft.studies.publish.published import VERDICTS, Published
from regraft.studies.publish.words import counted, marked, measured, p_value


def index(found: Sequence[Published], preset: str, without: Sequence[str] = ()) -> Results:
    """The page that leads to all others.

    Args:
        found: the studies; those without a finished cell have no page and say how to run them.
        preset: at which they were run.
        without: names of studies that have no such preset.
    """
    done = [p for p in found if p.done]
    total = {v: sum(p.counts[v] for p in done) for v in VERDICTS}
    judged = total[REPRODUCED] + total[NOT_REPRODUCED]
    facts: list[Fact] = [
        {"label": "Studies", "value": f"{len(done)} of {len(found)}", "note": "with results"},
        *counted(total),
    ]  # fmt: skip
    partial = [p.study.name for p in done if p.rows.missing]
    result: Results = {
        "title": "Studies: published against measured",
        "subtitle": f"Preset {preset}",
        "summary": (
            f"{len(done)} of {len(found)} studies have results. Of {judged} published claims that can be "
            f"judged at this scale, {total[REPRODUCED]} are reproduced and {total[NOT_REPRODUCED]} are not; "
            f"{total[OUT_OF_SCALE]} are out of scale."
        ),
        "facts": facts,
        "tables": [_studies(found), *_claims(done)],
        "versions": found[0].versions if found else files.versions(),
    }
    notices = []
    if partial:
        notices.append(f"Not complete: {', '.join(partial)}.")
    if without:
        notices.append(f"Without a preset '{preset}': {', '.join(without)}.")
    if notices:
        result["notice"] = " ".join(notices)
    return result


def _studies(found: Sequence[Published]) -> Table:
    rows: list[list[Any]] = []
    for one in found:
        counts = one.counts
        if one.done:
            name: Any = {"text": one.study.name, "href": one.file}
            verdicts: list[Any] = [counts[v] for v in VERDICTS]
        else:
            name, verdicts = one.study.name, [None] * len(VERDICTS)
        rows.append([name, one.study.title, one.study.reproduces, *verdicts, _cells(one)])
    return {
        "title": "Studies",
        "heading": "Studies",
        "columns": [
            "Study",
            "Title",
            "Reproduces",
            "Reproduced",
            "Not reproduced",
            "Out of scale",
            "Cells done",
        ],
        "rows": rows,
        "sortable": True,
    }


def _cells(one: Published) -> str:
    if not one.done:
        return f"No results yet: run `{one.command('run')}`."
    failed = f", {one.failed:,} failed" if one.failed else ""
    return f"{one.done:,} of {one.cells:,}{failed}"


def _claims(done: Sequence[Published]) -> list[Table]:
    """All claims, those that are reproduced first."""
    rows: list[list[Any]] = [
        [
            v.claim.text, {"text": one.study.name, "href": one.file}, v.claim.source, v.published,
            measured(v), p_value(v), marked(v),
        ]
        for verdict in VERDICTS
        for one in done
        for v in one.verdicts
        if v.verdict == verdict
    ]  # fmt: skip
    if not rows:
        return []
    return [{
        "title": "Claims", "heading": "All claims", "rows": rows, "sortable": True,
        "columns": ["Claim", "Study", "Source", "Published", "Measured", "p", "Verdict"],
    }]  # fmt: skip
