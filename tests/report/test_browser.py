"""The report as a browser shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from regraft import report

MEASURE = """(() => {
  const boxes = [...document.querySelectorAll("svg.chart")].map(s => s.getBoundingClientRect());
  const text = [...document.querySelectorAll("svg.chart text")].map(t => t.getBoundingClientRect());
  const luminance = colour => {
    const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const card = luminance(getComputedStyle(document.querySelector("figure")).backgroundColor);
  const axis = [...document.querySelectorAll("svg.chart [id*='axis'] text")];
  return {
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    charts: boxes.map(b => [b.width, b.height]),
    smallest_text: Math.min(...text.map(t => t.height)),
    axis_contrast: Math.min(...axis.map(t => contrast(card, luminance(getComputedStyle(t).fill)))),
    muted_contrast: contrast(card, luminance(getComputedStyle(document.querySelector("figcaption")).color)),
    card: card,
    outside: [...document.querySelectorAll("svg.chart")].flatMap(s => {
      const box = s.getBoundingClientRect();
      return [...s.querySelectorAll("text")].filter(t => {
        const r = t.getBoundingClientRect();
        return r.left < box.left - 1 || r.right > box.right + 1
          || r.top < box.top - 1 || r.bottom > box.bottom + 1;
      }).map(t => t.textContent);
    }),
    overlaps: [...document.querySelectorAll("svg.chart [id*='axis']")].flatMap(a => {
      const r = [...a.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
      const hits = [];
      for (let i = 0; i < r.length; i++) for (let j = 0; j < i; j++) {
        const [p, q] = [r[i][1], r[j][1]];
        if (p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 3 && q.top < p.bottom - 3)
          hits.push(r[i][0] + " / " + r[j][0]);
      }
      return hits;
    }),
  };
})()"""


@pytest.fixture(scope="module")
def page(html: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(html, encoding="utf-8")
    return path


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_readable(browser: Any, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width, dark=dark)
    seen = browser.evaluate(MEASURE)
    assert seen["overflow"] == 0
    assert len(seen["charts"]) == 10
    assert all(w > 250 and h > 100 for w, h in seen["charts"])
    assert seen["smallest_text"] >= 9
    assert seen["axis_contrast"] > 7
    assert seen["muted_contrast"] > 4.5
    assert (seen["card"] < 0.1) == dark
    assert seen["outside"] == []
    assert seen["overlaps"] == []


def test_the_page_asks_for_nothing_and_reports_no_error(browser: Any, page: Path) -> None:
    browser.open(page, 1280)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    sent = [
        e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in sent if not url.startswith("data:")] == [page.resolve().as_uri()]
    loud = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    assert [e for e in browser.events if e["method"] in loud] == []


def test_open_tables_fit_a_phone(browser: Any, results: dict[str, Any], tmp_path: Path) -> None:
    results["tables"][0]["columns"] = ["x" * 60] * 4
    browser.open(report.write(tmp_path / "report.html", results), 390)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.evaluate(MEASURE)["overflow"] == 0


def test_twenty_networks_have_room(browser: Any, tmp_path: Path) -> None:
    names = [f"seed {i}" for i in range(20)]
    nnstd = [[0.0 if i == j else 0.9 for j in range(20)] for i in range(20)]
    curves = [{"name": n, "epochs": [1, 2], "accuracy": [0.5, 0.6]} for n in names]
    counts = [{"name": n, "counts": [float(i) for i in range(64)]} for n in names]
    results = {
        "distances": {"names": names, "nnstd": nnstd},
        "curves": curves,
        "pattern": {"shape": [8, 8], "networks": counts},
    }
    browser.open(report.write(tmp_path / "report.html", results), 390)
    seen = browser.evaluate(MEASURE)
    assert seen["overflow"] == 0
    assert seen["outside"] == []


def test_the_browser_test_would_notice_a_request(browser: Any, html: str, tmp_path: Path) -> None:
    """The content security policy of the page itself stops what should not be there, and the log says so."""
    path = tmp_path / "report.html"
    path.write_text(html.replace("</body>", "<img src='missing.png'></body>"), "utf-8")
    browser.open(path, 1280)
    assert any("Content Security Policy" in str(e) for e in browser.events if e["method"] == "Log.entryAdded")
