"""A study done in this process, cell by cell."""

from __future__ import annotations

from pathlib import Path

from regraft.studies.catalogue import preset as preset_of
from regraft.studies.run.folder import Folder
from regraft.studies.run.perform import Job, perform
from regraft.studies.study import Study, in_order


def run_here(study: Study, preset: str, folder: Folder, data_dir: Path | None = None) -> None:
    """Do the cells of a study that are missing, one after another; the first error ends it."""
    done = folder.done()
    for cell in in_order(study.cells(preset_of(study, preset).settings)):
        if cell.key in done:
            continue
        needs = tuple(c.key for c in cell.needs)
        inputs = [found for key in needs if (found := folder.read(key)) is not None]
        part = folder.new_part()
        perform(cell.step, Job(cell.key, cell.config, needs), inputs, part, data_dir)
        folder.keep(cell.key, part)
