"""The page of a run in headless Chromium: it draws, says nothing on its console, fetches nothing, at any length and width."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from made_runs import make
from oncue.cli import main
from oncue.report import find_run
from oncue.report.page import page
from oncue.report.watch import Watch

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
KEPT = os.environ.get("ONCUE_SCREENSHOTS")
"""A folder for the pictures, which `make screenshots` sets."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="needs playwright"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # In a container, as root, Chromium has no sandbox of its own.
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


class Seen:
    """A page that was opened, and all that it said and asked for."""

    def __init__(self, browser: Any, url: str, width: int = 1180, scheme: str = "light") -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url)
        self.page.wait_for_function(
            "[...document.querySelectorAll('.chart')].every(chart => chart.querySelector('svg'))", timeout=60_000
        )

    def keep(self, name: str) -> None:
        if KEPT:
            self.page.screenshot(path=Path(KEPT, f"{name}.png"), full_page=True)


@pytest.fixture(scope="module", params=[3, 300, 30_000])
def report(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """Return the number of epochs, and the page, of a run that was interrupted and resumed."""
    folder = make(tmp_path_factory.mktemp("run") / f"run-{request.param}", request.param)
    assert find_run(folder).record.epochs == list(range(request.param))
    assert main(["report", str(folder), "-o", str(folder / "report.html")]) == 0
    assert (folder / "report.html").stat().st_size < 2_000_000
    return request.param, folder / "report.html"


@pytest.mark.parametrize(("width", "scheme"), [(1180, "light"), (1180, "dark"), (375, "light")])
def test_it_draws_without_a_word(report: tuple[int, Path], width: int, scheme: str, browser: Any) -> None:
    epochs, path = report
    seen = Seen(browser, path.as_uri(), width, scheme)
    assert seen.said == [] and seen.asked == [path.as_uri()]
    # One for each value, for each weight and the shares of zeros, and for the costs.
    assert seen.page.locator(".chart svg").count() == 4 + 4 + 1
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    text = seen.page.inner_text("body")
    assert "resumed once" in text and f"{epochs:,} of {epochs:,}" in text
    colour = seen.page.evaluate("getComputedStyle(document.querySelector('.chart svg text')).fill")
    assert (colour == "rgb(237, 238, 240)") == (scheme == "dark")
    seen.keep(f"report-{epochs}-{width}-{scheme}")


def test_decisions_are_explained_on_hover(report: tuple[int, Path], browser: Any) -> None:
    seen = Seen(browser, report[1].as_uri())
    # Marks are drawn last, so that they are above the curves.
    mark = seen.page.locator("#chart0 svg .mark-symbol path[aria-label*='rate changed']").first
    mark.scroll_into_view_if_needed()
    mark.hover(force=True)
    tip = seen.page.locator("#vg-tooltip-element.visible")
    tip.wait_for(timeout=10_000)
    assert "Decides: learning rate 0.1 to 0.05" in tip.inner_text()
    seen.keep(f"hover-{report[0]}")


def test_it_prints(report: tuple[int, Path], browser: Any, tmp_path: Path) -> None:
    seen = Seen(browser, report[1].as_uri(), scheme="dark")
    content = seen.page.pdf(format="A4")
    assert content.startswith(b"%PDF") and seen.said == []
    if KEPT:
        Path(KEPT, f"report-{report[0]}.pdf").write_bytes(content)


def test_several_runs_over_each_other(tmp_path: Path, browser: Any) -> None:
    runs = [str(make(tmp_path / name, epochs)) for name, epochs in (("short", 40), ("long", 60), ("broken", 50))]
    assert main(["compare", *runs, "-o", str(tmp_path / "compare.html")]) == 0
    seen = Seen(browser, (tmp_path / "compare.html").as_uri())
    assert seen.said == [] and seen.page.locator(".chart svg").count() == 6
    seen.keep("compare")


def test_texts_of_a_run_are_no_code(tmp_path: Path, browser: Any) -> None:
    import json

    evil = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
    lines = [
        {"line": "begin", "format": 1, "time": 0.0, "epochs": 3},
        *({"line": "epoch", "epoch": epoch, "time": 1.0, "seconds": 1.0, "logs": {"loss": 0.5, evil: 1.0, "a.b[0]'": 2.0}}
          for epoch in range(5)),
        {"line": "decision", "time": 2.0, "epoch": 1, "callback": evil, "kind": "stop", "text": evil},
        {"line": "end", "how": "failed", "error": evil, "epoch": 1, "costs": {evil: {evil: 1.0}}},
    ]  # fmt: skip
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "report.html")]) == 0
    seen = Seen(browser, (tmp_path / "report.html").as_uri())
    seen.page.locator("#chart0 svg .mark-symbol path").first.hover(force=True)
    seen.page.wait_for_timeout(300)
    assert seen.said == [] and len(seen.asked) == 1 and seen.page.locator("img").count() == 0


def test_it_is_served_while_the_run_goes_on(tmp_path: Path, browser: Any) -> None:
    folder = make(tmp_path / "run", 40, stop_after=30)

    def version() -> str:
        return str((folder / "journal.jsonl").stat().st_mtime_ns)

    watch = Watch(lambda version: page(find_run(folder), version), version)
    Thread(target=watch.serve, daemon=True).start()
    try:
        seen = Seen(browser, watch.url)
        assert "31 of 40" in seen.page.inner_text("body")
        make(folder, 40)
        seen.page.wait_for_function("document.body.innerText.includes('40 of 40')", timeout=30_000)
        assert seen.said == [] and all(url.startswith(watch.url) for url in seen.asked)
    finally:
        watch.close()
