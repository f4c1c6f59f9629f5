"""How verdicts, cells and times are written on pages, in the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from regraft.report import Fact, Marked
from regraft.studies.claims import NOT_REPRODUCED, OUT_OF_SCALE, REPRODUCED
from regraft.studies.statistics.significance import p_text
from regraft.studies.verdicts import Verdict

COLUMNS = ("Claim", "Source", "Published", "Measured", "p", "Verdict", "Why")


def measured(verdict: Verdict) -> str | None:
    """Mean ± half its interval, with the number of samples; None where there is nothing."""
    return None if verdict.mean is None else f"{verdict.measured} ({verdict.n})"


def p_value(verdict: Verdict) -> str | None:
    """The p-value of an ordering, as short as can be; None where there is none."""
    return None if verdict.p is None else p_text(verdict.p).removeprefix("= ")


def marked(verdict: Verdict) -> Marked:
    """The verdict as a cell of a table."""
    if verdict.verdict == REPRODUCED:
        return {"text": verdict.verdict, "mark": "yes"}
    return {"text": verdict.verdict, "mark": "no" if verdict.verdict == NOT_REPRODUCED else "none"}


def counted(counts: Mapping[str, int]) -> list[Fact]:
    """How many claims have each verdict."""
    judged = counts[REPRODUCED] + counts[NOT_REPRODUCED]
    return [
        {"label": "Reproduced", "value": str(counts[REPRODUCED]), "note": f"of {judged} that can be judged"},
        {"label": "Not reproduced", "value": str(counts[NOT_REPRODUCED])},
        {"label": "Out of scale", "value": str(counts[OUT_OF_SCALE]), "note": "too small here, or missing"},
    ]


def duration(seconds: float) -> str:
    """A time as one reads it.

    >>> duration(0.4), duration(71.0), duration(4000.0), duration(200_000.0)
    ('0.4 s', '71 s', '67 min', '2 days, 7:33:20')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else str(timedelta(seconds=round(seconds)))


def partial(done: int, cells: int, failed: int, command: str) -> str:
    """What a reader must know of a study that is not complete; empty where it is."""
    if done == cells:
        return ""
    lost = f", {failed:,} of them failed" if failed else ""
    retry = " --retry-failed" if failed else ""
    return (
        f"These results are partial: {done:,} of {cells:,} cells are done, {cells - done:,} are "
        f"missing{lost}. `{command}{retry}` does the rest."
    )
