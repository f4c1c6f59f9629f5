"""Say why a tag is no release yet, or print its notes: `python release/check.py v0.1.0`.

The tag, `src/regraft/version.py`, `CITATION.cff` and a dated section of `CHANGELOG.md` must name the same
version, and nothing may be left under Unreleased.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION = re.compile(r"\d+\.\d+\.\d+(rc\d+)?")
SECTION = re.compile(r"^## \[(?P<name>[^\]]+)\](?: - (?P<date>\d{4}-\d\d-\d\d))?$", re.MULTILINE)


def sections(changelog: str) -> dict[str, tuple[str | None, str]]:
    """Date and text of each section of a changelog, by name, in its order."""
    found = list(SECTION.finditer(changelog))
    ends = [*(match.start() for match in found[1:]), len(changelog)]
    return {
        m["name"]: (m["date"], changelog[m.end() : end].strip()) for m, end in zip(found, ends, strict=True)
    }


def faults(tag: str, root: Path) -> list[str]:
    """What keeps the tree at ``root`` from being released as ``tag``; one sentence each."""
    version = tag.removeprefix("v")
    if not tag.startswith("v") or not VERSION.fullmatch(version):
        return [f"the tag is {tag!r}, but must be v and a version, as in v0.1.0 or v0.1.0rc1"]
    said = re.search(r'__version__ = "(.*)"', (root / "src/regraft/version.py").read_text())
    cited = re.search(r"^version: (.*)$", (root / "CITATION.cff").read_text(), re.MULTILINE)
    found = [
        f"{where} says {match[1] if match else 'nothing'}, not {version}"
        for where, match in (("src/regraft/version.py", said), ("CITATION.cff", cited))
        if match is None or match[1] != version
    ]
    log = sections((root / "CHANGELOG.md").read_text())
    if version not in log or log[version][0] is None or not log[version][1]:
        found.append(f"CHANGELOG.md has no section `## [{version}] - YYYY-MM-DD` with text")
    if log.get("Unreleased", (None, ""))[1]:
        found.append(f"CHANGELOG.md has changes under Unreleased: move them to {version}")
    return found


def main(tag: str, root: Path = ROOT) -> int:
    """Print the faults, or the notes of the release; 1 or 0."""
    found = faults(tag, root)
    for sentence in found:
        print(sentence, file=sys.stderr)
    if not found:
        print(sections((root / "CHANGELOG.md").read_text())[tag.removeprefix("v")][1])
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
