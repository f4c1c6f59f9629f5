"""Say what is wrong with the wheel and the sdist of a folder, or what is in them: `inspect_dist.py dist`."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

KERNELS = {f"regraft/kernels/{name}.abi3.so" for name in ("_native", "_conv", "_search")}
ASSETS = {"regraft/py.typed", *(f"regraft/report/report.{kind}" for kind in ("html", "css", "js"))}
WHEEL = re.compile(r"regraft-[^-]+-cp311-abi3-(?:manylinux\w+\.)*manylinux_2_(\d+)_\w+\.whl")
NEWEST_GLIBC = 28  # what torch's own wheels ask for
MOST = 3_000_000  # bytes


def faults_of_wheel(path: Path) -> list[str]:
    """What a wheel for Linux has and should not have, and the other way round; one sentence each."""
    found = []
    match = WHEEL.fullmatch(path.name)
    if match is None:
        found.append(
            f"{path.name} is not named as a wheel for the stable interface of CPython 3.11 on manylinux"
        )
    elif int(match[1]) > NEWEST_GLIBC:
        found.append(f"{path.name} asks for glibc 2.{match[1]}, torch's wheels for 2.{NEWEST_GLIBC} at most")
    with zipfile.ZipFile(path) as wheel:
        names = {name for name in wheel.namelist() if not name.endswith("/")}
    found += [f"{path.name} lacks {name}" for name in sorted((KERNELS | ASSETS) - names)]
    tops = {name.split("/")[0] for name in names}
    found += [f"{path.name} holds {top}" for top in sorted(tops) if not top.startswith("regraft")]
    stray = {name for name in names if name.endswith((".c", ".h", ".pyc")) or "/tests/" in name}
    found += [f"{path.name} holds {name}" for name in sorted(stray)]
    if path.stat().st_size > MOST:
        found.append(f"{path.name} has {path.stat().st_size:,} bytes, more than {MOST:,}")
    return found


def faults_of_sdist(path: Path, sources: set[str]) -> list[str]:
    """What of ``sources``, the the committed files, is missing in the sdist, and what was built there."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {name for name in sources if name.startswith("src/")}
    wanted |= {"setup.py", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"}
    found = [f"{path.name} lacks {name}" for name in sorted(wanted - names)]
    found += [f"{path.name} holds {name}" for name in sorted(names) if name.endswith((".so", ".pyc", ".o"))]
    return found


def committed() -> set[str]:
    """The files of the last commit."""
    command = ["git", "ls-tree", "-r", "--name-only", "HEAD"]
    root = Path(__file__).parents[1]
    return set(
        subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split("\n")
    )


def main(folder: Path) -> int:
    """Print faults, or the files; the number of faults."""
    wheels, sdists = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sdists) != 1:
        found = [f"{folder} holds {len(wheels)} wheels and {len(sdists)} sdists, but must hold one of each"]
    else:
        found = faults_of_wheel(wheels[0]) + faults_of_sdist(sdists[0], committed())
    for sentence in found:
        print(sentence, file=sys.stderr)
    for path in [] if found else [*wheels, *sdists]:
        print(f"{path.name}: {path.stat().st_size:,} bytes")
    return len(found)


if __name__ == "__main__":
    sys.exit(min(main(Path(sys.argv[1])), 100))
