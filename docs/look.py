"""Photograph every page of the built site at the width of a phone and of a desk, on sheets to look through.

    make docs
    python docs/look.py docs/_build/html looks          # looks/390-0.png, looks/1280-0.png, ...
    python docs/look.py docs/_build/html looks --dark

Needs Chromium and Pillow. tests/test_site.py checks what a program can see: room, links, pictures.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.browser import Browser, opened  # noqa: E402

WIDTHS = {390: (6, 0.62), 1280: (4, 0.36)}  # photographs in a row of the sheet, and their scale
TALLEST = 2600  # CSS pixels of a page that are shown
ROWS = 2


def photograph(browser: Browser, page: Path, width: int, dark: bool, file: Path) -> Image.Image:
    """The upper part of one page."""
    browser.open(page, width, dark=dark)
    browser.screenshot(file)
    with Image.open(file) as shot:
        return shot.convert("RGB").crop((0, 0, width, min(shot.height, TALLEST)))


def sheets(shots: list[tuple[str, Image.Image]], width: int, out: Path) -> None:
    """Photographs in rows, each with its name above it."""
    columns, scale = WIDTHS[width]
    cell, tall = int(width * scale), int(TALLEST * scale)
    for number, start in enumerate(range(0, len(shots), columns * ROWS)):
        sheet = Image.new("RGB", (columns * (cell + 8), ROWS * (tall + 24)), "#888888")
        draw = ImageDraw.Draw(sheet)
        for i, (name, shot) in enumerate(shots[start : start + columns * ROWS]):
            x, y = i % columns * (cell + 8), i // columns * (tall + 24)
            draw.text((x + 4, y + 4), name, fill="white")
            sheet.paste(shot.resize((cell, int(shot.height * scale))), (x, y + 20))
        sheet.save(out / f"{width}-{number}.png")


def main() -> None:
    """Read the options, photograph, write the sheets."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("site", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dark", action="store_true", help="as on a device that is set to dark")
    parser.add_argument("--only", default="", help="pages whose path contains this")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    pages = [
        p for p in sorted(chosen.site.rglob("*.html")) if "_modules" not in p.parts and chosen.only in str(p)
    ]
    with tempfile.TemporaryDirectory() as folder:
        for browser in opened(Path(folder) / "profile"):
            for width in WIDTHS:
                shots = []
                for page in pages:
                    name = page.relative_to(chosen.site).with_suffix("").as_posix()
                    shot = photograph(browser, page, width, chosen.dark, Path(folder) / "shot.png")
                    shots.append((name, shot))
                sheets(shots, width, chosen.out)


if __name__ == "__main__":
    main()
