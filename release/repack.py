"""Pack an sdist anew so that its bytes depend on nothing but its files: `repack.py SDIST FOLDER`.

Times become SOURCE_DATE_EPOCH, owners 0, modes 644 or 755, and entries are sorted: setuptools takes all of
them from the checkout that it finds.
"""

from __future__ import annotations

import gzip
import os
import sys
import tarfile
from pathlib import Path


def repack(source: Path, folder: Path, time: int) -> Path:
    """Write ``source``, normalised, into ``folder`` under its own name."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / source.name
    with (
        tarfile.open(source) as old,
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=9, fileobj=raw, mtime=time) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as new,
    ):
        for entry in sorted(old.getmembers(), key=lambda member: member.name):
            executable = entry.isdir() or entry.mode & 0o100
            entry.mode = 0o755 if executable else 0o644
            entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = time, 0, 0, "", ""
            entry.pax_headers = {}
            new.addfile(entry, old.extractfile(entry) if entry.isfile() else None)
    return target


if __name__ == "__main__":
    repack(Path(sys.argv[1]), Path(sys.argv[2]), int(os.environ["SOURCE_DATE_EPOCH"]))
