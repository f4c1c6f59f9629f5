"""Making the database hold what the cells of a folder say."""

from __future__ import annotations

import os

from regraft.errors import RegraftError
from regraft.studies import catalogue
from regraft.studies.folder import Folder
from regraft.studies.store.database import FILE, Store
from regraft.studies.study import Study, in_order


def synchronise(folder: Folder | str | os.PathLike[str], study: Study, preset: str) -> int:
    """Add what the database lacks of a study at a preset.

    Returns:
        The number of its cells that are done.

    Raises:
        FileError: no folder of results, or a database of another version or that cannot be written.
        InputError: the study has no such preset.
    """
    kept = folder if isinstance(folder, Folder) else Folder(folder)
    cells = in_order(study.cells(catalogue.preset(study, preset).settings))
    done, failed = kept.done(), kept.failed()
    keys = [c.key for c in cells if c.key in done]
    with Store(kept.path / FILE) as store:
        store.synchronise(kept, study.name, preset, keys, {c.key for c in cells} & failed - done)
    return len(keys)


def rebuild(folder: Folder | str | os.PathLike[str]) -> None:
    """Make the database from the cells, for all studies that regraft brings.

    Raises:
        FileError: no folder of results, or a database of another version or that cannot be written.
    """
    kept = folder if isinstance(folder, Folder) else Folder(folder)
    Store(kept.path / FILE).close()
    done = kept.done() | kept.failed()
    for name in catalogue.names():
        try:
            study = catalogue.named(name)
            presets = [
                p
                for p, preset in study.presets.items()
                if any(c.key in done for c in in_order(study.cells(preset.settings)))
            ]
        except RegraftError:
            continue  # a study that cannot list its cells here has none here
        for preset in presets:
            synchronise(kept, study, preset)
