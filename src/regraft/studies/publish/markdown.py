"""The verdicts as Markdown, for pages of documentation."""

from __future__ import annotations

from collections.abc import Sequence

from regraft.studies.publish.published import Published
from regraft.studies.publish.words import COLUMNS, measured, p_value, partial


def markdown(found: Published) -> str:
    """The table of published against measured, and a line on the cells behind it."""
    lines = [_row(COLUMNS), _row(["---"] * len(COLUMNS))]
    for v in found.verdicts:
        cells = [v.claim.text, v.claim.source, v.published, measured(v), p_value(v), v.verdict, v.why]
        lines.append(_row([c or "" for c in cells]))
    state = partial(found.done, found.cells, found.failed, found.command("run"))
    behind = f"Preset {found.rows.preset}: {found.done:,} cells, {len(found.rows):,} rows."
    return "\n".join([f"`{found.study.name}`: {found.study.title}", "", *lines, "", state or behind, ""])


def _row(cells: Sequence[str]) -> str:
    """
    >>> _row(["a", "b | c"])
    '| a | b \\\\| c |'
    """
    return "| " + " | ".join(" ".join(c.split()).replace("|", "\\|") for c in cells) + " |"
