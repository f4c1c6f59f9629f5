"""What keeps a tag from becoming a release, and that this tree is fit to become one."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import regraft

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def script(name: str) -> ModuleType:
    """A script of the folder `release`, imported."""
    spec = importlib.util.spec_from_file_location(f"release_{name}", ROOT / "release" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = script("check")
LOG = """# Changelog

## [Unreleased]
{left}
## [1.2.3] - 2026-11-21

### Added

- A thing.

## [1.2.2] - 2026-01-01

- Old.
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree that is ready to be released as 1.2.3."""
    (tmp_path / "src/regraft").mkdir(parents=True)
    (tmp_path / "src/regraft/version.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 1.2.3\n")
    (tmp_path / "CHANGELOG.md").write_text(LOG.format(left=""))
    return tmp_path


def test_a_tree_that_is_ready_gives_the_notes_of_its_version(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check.main("v1.2.3", tree) == 0
    assert capsys.readouterr().out == "### Added\n\n- A thing.\n"


@pytest.mark.parametrize(
    ("tag", "file", "text", "told"),
    [
        ("1.2.3", None, "", "the tag is '1.2.3'"),
        ("v1.2", None, "", "the tag is 'v1.2'"),
        ("v1.2.3.dev0", None, "", "the tag is"),
        ("v1.2.4", None, "", "version.py says 1.2.3, not 1.2.4"),
        ("v1.2.3", "src/regraft/version.py", '__version__ = "1.3.0"', "version.py says 1.3.0, not 1.2.3"),
        ("v1.2.3", "CITATION.cff", "version: 1.2.2\n", "CITATION.cff says 1.2.2, not 1.2.3"),
        ("v1.2.3", "CITATION.cff", "title: x\n", "CITATION.cff says nothing, not 1.2.3"),
        ("v1.2.3", "CHANGELOG.md", "## [Unreleased]\n", "no section `## [1.2.3] - YYYY-MM-DD`"),
        ("v1.2.3", "CHANGELOG.md", "## [1.2.3]\n\n- A thing.\n", "no section `## [1.2.3] - YYYY-MM-DD`"),
        ("v1.2.3", "CHANGELOG.md", LOG.format(left="\n- More.\n"), "changes under Unreleased"),
    ],
)
def test_a_tree_that_is_not_ready_says_why(
    tag: str, file: str | None, text: str, told: str, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if file is not None:
        (tree / file).write_text(text)
    assert check.main(tag, tree) == 1
    shown = capsys.readouterr()
    assert told in shown.err
    assert shown.out == ""


def test_this_tree_names_one_version_and_keeps_a_changelog() -> None:
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is not None
    assert cited[1] == regraft.__version__
    log = check.sections((ROOT / "CHANGELOG.md").read_text())
    assert next(iter(log)) == "Unreleased"
    assert regraft.__version__ in log or log["Unreleased"][1], "nothing is noted about the next release"
    assert all(date is not None for name, (date, _) in log.items() if name != "Unreleased")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_do_little_and_use_actions_of_one_commit(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    used = [step["uses"] for step in steps if "uses" in step]
    assert used
    assert [name for name in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", name)] == []
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())


def test_the_tests_of_every_python_that_the_package_is_for_are_run() -> None:
    told = (ROOT / "pyproject.toml").read_text()
    claimed = set(re.findall(r'"Programming Language :: Python :: (3\.\d+)"', told))
    matrix = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]["test"]["strategy"]
    assert set(matrix["matrix"]["python"]) == claimed
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in claimed


def test_the_lowest_versions_are_those_that_the_package_asks_for() -> None:
    told = (ROOT / "pyproject.toml").read_text().split("dependencies = [")[1].split("]")[0]
    wanted = dict(re.findall(r'^    "([\w-]+)>=([\d.]+)",$', told, re.MULTILINE))
    lowest = (ROOT / "release" / "lowest.txt").read_text()
    pinned = {k.lower(): v for k, v in re.findall(r"^([\w-]+)==([\d.]+)$", lowest, re.MULTILINE)}
    assert wanted.keys() == pinned.keys()
    assert all(pinned[name].startswith(version) for name, version in wanted.items())
