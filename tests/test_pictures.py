"""The pictures of the documentation: what is committed is what the code draws, light and dark."""

import importlib
import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import make_images  # noqa: E402
from pictures.canvas import FOLDER, Canvas, save  # noqa: E402

sys.path.remove(str(ROOT / "docs"))
DRAWN_BY = dict(
    re.findall(r"^(matplotlib|numpy)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
)
PART = re.compile(r'id="((?:axes|line2d|patch|text)_\d+)"')
COLOUR = re.compile(r"#[0-9a-f]{6}")


def test_every_module_is_a_picture_and_every_idea_shows_one():
    modules = {p.stem for p in (ROOT / "docs" / "pictures").glob("*.py")} - {"__init__", "canvas"}
    assert set(make_images.ALL) == modules
    for page in (ROOT / "docs" / "ideas").glob("*.md"):
        shown = set(re.findall(r"images/([\w-]+)-light\.svg", page.read_text()))
        assert shown & set(make_images.ALL.values()), page.name


@pytest.mark.parametrize("name", sorted(make_images.QUICK))
def test_a_picture_is_what_its_code_draws(name, tmp_path):
    for package, wanted in DRAWN_BY.items():
        if version(package) != wanted:
            pytest.skip(f"drawn with {package} {wanted}, and this is {version(package)}")
    make_images.make(name, tmp_path)
    for made in tmp_path.iterdir():
        assert made.read_bytes() == (FOLDER / made.name).read_bytes(), f"python docs/make_images.py {name}"


@pytest.mark.parametrize("file", sorted(make_images.ALL.values()))
def test_both_themes_show_the_same_in_other_colours(file):
    light, dark = ((FOLDER / f"{file}-{kind}.svg").read_text() for kind in ("light", "dark"))
    assert PART.findall(light) == PART.findall(dark)
    inks = [set(COLOUR.findall(text)) for text in (light, dark)]
    assert "#1b2026" in inks[0] - inks[1]
    assert "#e8ebee" in inks[1] - inks[0]


def test_words_too_small_for_a_phone_are_refused(tmp_path):
    def small(theme):
        page = Canvas(1.0, theme)
        page.text(0, 0, "fine print", size=7)
        return page

    with pytest.raises(ValueError, match="fine print"):
        save("small", small, tmp_path)


def test_a_picture_that_is_not_there_is_named():
    with pytest.raises(SystemExit, match="nonsense"):
        make_images.main(["nonsense"])


def test_pictures_have_modules_that_draw():
    for name in make_images.ALL:
        module = importlib.import_module(f"pictures.{name}")
        assert callable(module.compute)
        assert callable(module.draw)
