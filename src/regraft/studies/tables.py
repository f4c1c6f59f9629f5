"""The table of a study: rows of its finished cells, joined with their configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regraft.studies.catalogue import preset as preset_of
from regraft.studies.folder import Folder
from regraft.studies.study import Result, Row, Rows, Study, in_order


def table(study: Study, preset: str, folder: Folder) -> Rows:
    """All finished cells of a study at a preset.

    Raises:
        InputError: the study has no such preset.
    """
    cells = in_order(study.cells(preset_of(study, preset).settings))
    done = folder.done()
    results = [r for c in cells if c.key in done and (r := folder.read(c.key)) is not None]
    rows = [row for r in results for row in joined(r)]
    return Rows(rows, results, preset, len(cells) - len(results))


def joined(result: Result) -> list[Row]:
    """A cell's rows with its configuration: nested settings as ``outer.inner``; the row's own names win.

    >>> from pathlib import Path
    >>> joined(Result("k", "train", {"seed": 1, "recipe": {"lr": 0.1}}, [{"accuracy": 0.9}], [], Path()))
    [{'cell': 'k', 'step': 'train', 'seed': 1, 'recipe.lr': 0.1, 'accuracy': 0.9}]
    """
    config = flat(result.config)
    return [{"cell": result.key, "step": result.step, **config, **row} for row in result.rows]


def flat(config: Mapping[str, Any], before: str = "") -> Row:
    """A configuration as columns.

    >>> flat({"recipe": {"lr": 0.1}, "classes": [0, 1]})
    {'recipe.lr': 0.1, 'classes': '0 1'}
    """
    found: Row = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{before}{name}.")
        elif isinstance(value, list | tuple):
            found[before + name] = " ".join(str(v) for v in value)
        else:
            found[before + name] = value
    return found
