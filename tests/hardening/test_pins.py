"""What is installed beside regraft: each requirement is pinned once, in its range, under a free licence."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# those of Flower stand in a file of their own, and nobody tests with what is left out here
ELSEWHERE = {"federated", "federated-simulation", "parquet"}
PERMISSIVE = re.compile(
    r"\b(MIT|BSD|Apache|PSF|Python Software Foundation|MPL|Mozilla|ISC|Unlicense|HPND|0BSD|CC0|zlib)\b",
    re.IGNORECASE,
)


def pins(name: str) -> dict[str, str]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    found = [line.split("==") for line in lines if line]
    assert all(len(parts) == 2 and re.fullmatch(r"[0-9][0-9a-z.+]*", parts[1]) for parts in found), found
    names = [canonicalize_name(name) for name, _ in found]
    assert len(set(names)) == len(names), "pinned twice"
    return dict(zip(names, (version for _, version in found), strict=True))


def wanted() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(r for e, rs in extras.items() if e not in ELSEWHERE for r in rs)]
    return [r for r in map(Requirement, lines) if r.name != "regraft"]


@pytest.mark.parametrize("requirement", wanted(), ids=str)
def test_each_requirement_is_pinned_to_a_version_in_its_range(requirement: Requirement) -> None:
    version = pins("constraints.txt").get(canonicalize_name(requirement.name))
    assert version is not None, f"{requirement.name} is in no line of constraints.txt"
    assert requirement.specifier.contains(version), f"{requirement} does not allow {version}"


def test_each_pin_of_flower_is_one() -> None:
    assert pins("constraints-flower.txt")


def needed() -> list[str]:
    """What a plain `pip install regraft` brings here, with what that needs in turn."""
    found: dict[str, None] = {}
    waiting = list(map(Requirement, PROJECT["dependencies"]))
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if name in found or not applies:
            continue
        try:
            more = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform
        found[name] = None
        waiting += map(Requirement, more)
    return sorted(found)


@pytest.mark.parametrize("name", needed())
def test_what_regraft_brings_is_free_to_use(name: str) -> None:
    if name.startswith(("nvidia-", "cuda-")):
        pytest.skip("NVIDIA's libraries have a licence of their own; torch for CPUs needs none of them")
    about = importlib.metadata.metadata(name)
    told = [about.get("License-Expression") or "", (about.get("License") or "")[:200]]
    told += [c for c in about.get_all("Classifier") or [] if c.startswith("License")]
    assert any(PERMISSIVE.search(text) for text in told), told
