"""The site as it is built: no warning, nothing from a network, no dead link, every name, room on a phone."""

from __future__ import annotations

import contextlib
import html
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import pytest
from tests.browser import Browser, opened

import regraft
from regraft.errors import MissingDependency

DOCS = Path(__file__).parent.parent / "docs"
TAG = re.compile(r"<(?:a|img|script|link|source)\b[^>]*?\b(?:src|href)=\"([^\"]*)\"")
ID = re.compile(r"\bid=\"([^\"]*)\"")
LOADED = re.compile(r"<(?:script|img|link)[^>]*(?:src|href)=\"(https?://[^\"]+)\"")
PHONE = 390
UNLISTED = {"regraft.__version__"}  # a text, told on the page of names


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; REGRAFT_SITE names one that is there already."""
    if "REGRAFT_SITE" in os.environ:
        return Path(os.environ["REGRAFT_SITE"])
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", DOCS, folder]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def pages(site: Path) -> list[Path]:
    """Pages that are written here: neither source code nor reports of studies, which are tested apart."""
    left_out = {"_modules", "reports"}
    return sorted(p for p in site.rglob("*.html") if not left_out & set(p.relative_to(site).parts))


def test_the_site_builds_without_a_warning_and_needs_no_network(site: Path) -> None:
    built = {p.relative_to(site).with_suffix("").as_posix() for p in pages(site)}
    written = {
        p.relative_to(DOCS).with_suffix("").as_posix() for p in DOCS.rglob("*.md") if "_" not in p.parts[-2]
    }
    assert {name for name in written if not name.startswith("_")} <= built
    for page in pages(site):
        assert LOADED.findall(page.read_text(encoding="utf-8")) == [], page.name


def test_no_link_or_picture_is_broken(site: Path) -> None:
    texts = {page: page.read_text(encoding="utf-8") for page in pages(site)}
    ids: dict[Path, set[str]] = {}
    broken = []
    for page, text in texts.items():
        for target in {html.unescape(t) for t in TAG.findall(text)}:
            if re.match(r"[a-z]+:", target) or target in ("", "#"):
                continue
            path, _, fragment = target.partition("#")
            there = (page.parent / unquote(path.split("?")[0])).resolve() if path else page
            if not there.exists():
                broken.append(f"{page.relative_to(site)}: {target}")
            elif fragment and there.suffix == ".html" and "_modules" not in there.parts:
                if there not in ids:
                    ids[there] = set(ID.findall(there.read_text(encoding="utf-8")))
                if html.unescape(unquote(fragment)) not in ids[there]:
                    broken.append(f"{page.relative_to(site)}: {target}")
    assert broken == []


def public_packages() -> Iterator[ModuleType]:
    """Every package of regraft that can be imported here, but the command line's."""
    source = Path(regraft.__file__).parent
    for file in sorted(source.rglob("__init__.py")):
        parts = file.parent.relative_to(source).parts
        if parts[:1] != ("cli",):
            with contextlib.suppress(MissingDependency):
                yield importlib.import_module(".".join(("regraft", *parts)))


def listed(site: Path) -> set[str]:
    """Dotted names in the site's inventory of Python objects."""
    from sphinx.util.inventory import InventoryFile

    data = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    return {name for kind in data.data if kind.startswith("py:") for name in data.data[kind]}


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    """What a package lists in ``__all__`` is there by that name, or under another of its names."""
    there = listed(site)
    by_last: dict[str, list[str]] = {}
    for dotted in there:
        by_last.setdefault(dotted.rpartition(".")[2], []).append(dotted)
    missing = []
    for package in public_packages():
        for name in getattr(package, "__all__", ()):
            thing, dotted = getattr(package, name), f"{package.__name__}.{name}"
            known = dotted in there or inspect.ismodule(thing) or dotted in UNLISTED
            if not known and not any(same(other, thing) for other in by_last.get(name, ())):
                missing.append(dotted)
    assert missing == []


def same(dotted: str, thing: Any) -> bool:
    """Whether a dotted name of the reference is this object."""
    module, _, name = dotted.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None) is thing
    except ImportError:
        return False


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    yield from opened(tmp_path_factory.mktemp("profile"))


MEASURE = """(() => {
  const wide = document.documentElement.scrollWidth;
  const images = [...document.images].filter(i => i.checkVisibility());
  return {
    wide,
    cut: images.filter(i => i.getBoundingClientRect().right > innerWidth + 1).map(i => i.src),
    broken: images.filter(i => i.complete && !i.naturalWidth).map(i => i.src),
    unnamed: images.filter(i => !i.alt && !i.closest('.sidebar-brand')).map(i => i.src),
    dark: images.filter(i => i.src.endsWith('-dark.svg')).map(i => i.src),
  };
})()"""


def test_every_page_fits_a_phone_and_shows_the_pictures_of_its_theme(site: Path, browser: Browser) -> None:
    wrong: dict[str, Any] = {}
    for page in pages(site):
        browser.open(page, PHONE)
        seen = browser.evaluate(MEASURE)
        if seen.pop("wide") > PHONE or any(seen.values()):
            wrong[str(page.relative_to(site))] = seen
    assert wrong == {}
