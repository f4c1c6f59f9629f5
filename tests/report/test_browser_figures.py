"""Figures of studies and sortable tables as a browser shows them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

# Texts of one chart that lie over each other or beyond its edge. Numbers in cells and on axes are all there.
COLLISIONS = """(() => {
  const found = [];
  for (const svg of document.querySelectorAll("svg.chart")) {
    const title = svg.closest("figure").querySelector("h3").textContent;
    const box = svg.getBoundingClientRect();
    const all = [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
    for (const [text, r] of all)
      if (r.left < box.left - 1 || r.right > box.right + 1
          || r.top < box.top - 1 || r.bottom > box.bottom + 1)
        found.push(`${title}: ${text} lies outside`);
    for (let i = 0; i < all.length; i++) for (let j = 0; j < i; j++) {
      const [p, q] = [all[i][1], all[j][1]];
      if (p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 4 && q.top < p.bottom - 4)
        found.push(`${title}: ${all[i][0]} / ${all[j][0]}`);
    }
  }
  return found;
})()"""

# Lines and marks of a legend or a chart against the card they stand on (WCAG: at least 3 for graphics).
CONTRAST = """(() => {
  const luminance = colour => {
    const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const card = luminance(getComputedStyle(document.querySelector("figure, .scroll")).backgroundColor);
  const of = (query, field) => Math.min(
    ...[...document.querySelectorAll(query)].map(e => contrast(card, luminance(getComputedStyle(e)[field]))));
  return {keys: of(".legend line", "stroke"), marks: of(".legend path[transform^='translate(13']", "fill"),
    text: of(".mark, th, td, figcaption, label, thead button", "color")};
})()"""


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1280, False), (1280, True)])
def test_every_kind_is_readable(browser: Any, figures_page: Path, width: int, dark: bool) -> None:
    browser.open(figures_page, width, dark=dark)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(COLLISIONS) == []
    seen = browser.evaluate(CONTRAST)
    assert seen["keys"] >= 3
    assert seen["marks"] >= 3
    assert seen["text"] >= 4.5


def column(browser: Any, i: int = 0) -> list[str]:
    found = browser.evaluate(
        f"[...document.querySelectorAll('table.sortable tbody tr:not([hidden])')]"
        f".map(r => r.cells[{i}].textContent.trim())"
    )
    assert isinstance(found, list)
    return found


def press(browser: Any, key: str, code: int, text: str = "") -> None:
    for kind in ("keyDown", "keyUp"):
        event = {"type": kind, "key": key, "windowsVirtualKeyCode": code}
        browser.call("Input.dispatchKeyEvent", event | ({"text": text} if kind == "keyDown" and text else {}))


def test_a_table_is_sorted_with_the_keyboard(browser: Any, figures_page: Path) -> None:
    browser.open(figures_page, 1280)
    heads = "[...document.querySelectorAll('table.sortable thead th')].map(h => h.ariaSort)"
    assert browser.evaluate(heads) == ["none"] * 4
    browser.evaluate("document.querySelector('.scroll').focus()")
    press(browser, "Tab", 9)
    assert browser.evaluate("document.activeElement.textContent") == "Name"
    assert browser.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    press(browser, "Enter", 13, "\r")
    assert column(browser) == ["a", "b", "c", "d", "e", "f"]
    press(browser, "Enter", 13, "\r")
    assert column(browser) == ["f", "e", "d", "c", "b", "a"]
    assert browser.evaluate(heads) == ["descending", "none", "none", "none"]
    press(browser, "Tab", 9)
    press(browser, " ", 32, " ")
    # numbers as numbers, what is not there last
    assert column(browser, 1) == ["-3.5", "1e-05", "9", "10", "12,000", "\N{EN DASH}"]
    assert browser.evaluate(heads) == ["none", "ascending", "none", "none"]
    press(browser, " ", 32, " ")
    assert column(browser, 1)[0] == "12,000"
    assert column(browser, 1)[-1] == "\N{EN DASH}"
    press(browser, "Tab", 9)
    press(browser, "Enter", 13, "\r")
    assert column(browser, 2) == ["<0.001", "9 ± 1 (3)", "20", "100 ± 2 (3)", "1,200", "\N{EN DASH}"]


def test_a_table_is_filtered_by_words(browser: Any, figures_page: Path) -> None:
    browser.open(figures_page, 390)
    browser.evaluate("document.querySelector('.filter input').focus()")
    browser.call("Input.insertText", {"text": "REPRODUCED not"})
    assert column(browser) == ["a"]
    assert browser.evaluate("document.querySelector('.filter output').textContent") == "1 of 6 rows"
    assert "Claims" in browser.evaluate("document.querySelector('.filter input').ariaLabel")
    clear = "i => { i.value = ''; i.dispatchEvent(new Event('input')) }"
    browser.evaluate(f"({clear})(document.querySelector('.filter input'))")
    assert len(column(browser)) == 6


def test_without_scripts_the_table_is_plain(browser: Any, figures_page: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(figures_page, 1280)
        assert column(browser) == ["b", "a", "c", "d", "e", "f"]
        assert browser.evaluate("document.querySelectorAll('button, input').length") == 0
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", {"value": False})


def test_only_our_script_runs_and_nothing_is_asked_for(
    browser: Any, figures_page: Path, tmp_path: Path
) -> None:
    browser.open(figures_page, 1280)
    loud = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    assert [e for e in browser.events if e["method"] in loud] == []
    sent = [
        e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in sent if not url.startswith("data:")] == [figures_page.resolve().as_uri()]
    changed = tmp_path / "changed.html"
    changed.write_text(
        figures_page.read_text("utf-8").replace("<script>", "<script>window.ours = 1;"), "utf-8"
    )
    browser.open(changed, 1280)
    assert browser.evaluate("window.ours === undefined") is True
    assert any("Content Security Policy" in str(e) for e in browser.events if e["method"] == "Log.entryAdded")


def test_headings_are_in_order(browser: Any, figures_page: Path) -> None:
    browser.open(figures_page, 1280)
    levels = browser.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    bare = "t => !t.caption || t.querySelector('th:not([scope])')"
    assert browser.evaluate(f"[...document.querySelectorAll('table')].filter({bare}).length") == 0
