"""A run on real terminals: what tmux shows while the bar moves, in validation, and at the end, at four widths."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
KEPT = os.environ.get("ONCUE_SCREENSHOTS")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")]

SCRIPT = """
import time, numpy as np, oncue
from oncue.callbacks import EarlyStopping, LambdaCallback
oncue.utils.set_random_seed(0)
x = np.random.default_rng(0).random((320, 4), dtype="float32")
model = oncue.Sequential([oncue.layers.Input((4,)), oncue.layers.Dense(1)])
model.compile("adam", "mse", metrics=["mae", "accuracy"])
slow = LambdaCallback(
    on_train_batch_end=lambda batch, logs: time.sleep(0.15), on_test_batch_end=lambda batch, logs: time.sleep(0.3)
)
history = model.fit(x, x.sum(1), epochs=2, validation_split=0.4, callbacks=[slow, EarlyStopping(patience=5)])
print(history.explain())
print("that was all")
time.sleep(60)
"""
_COLOUR = re.compile("\x1b\\[[0-9;]*m|\x1b\\([A-Z]|[\x0e\x0f]")
_PAGE = """
<body style="margin: 1em; background: {background}; color: {foreground}">
<pre style="font: 14px/1.25 'DejaVu Sans Mono', monospace">{code}</pre></body>
"""
WIDTHS = [40, 60, 80, 120]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[[int], Callable[[], list[str]]]]:
    """Return a function that runs the script on a terminal of a width, and returns one that reads the screen."""
    socket = str(tmp_path / "tmux")
    (tmp_path / "script.py").write_text(SCRIPT)

    def tmux(*arguments: str) -> str:
        command = ["tmux", "-S", socket, "-f", "/dev/null", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    def open_one(width: int) -> Callable[[], list[str]]:
        run = f"{sys.executable} {tmp_path / 'script.py'}"
        tmux("-u", "new-session", "-d", "-x", str(width), "-y", "50", "-s", "run", run)
        # With its colours, which only pictures show.
        return lambda: tmux("capture-pane", "-p", "-e", "-t", "run").rstrip().splitlines()

    yield open_one
    tmux("kill-server")


def until(read: Callable[[], list[str]], pattern: str, seen: dict[str, list[str]]) -> list[str]:
    end = time.monotonic() + 90
    while time.monotonic() < end:
        coloured = read()
        lines = [_COLOUR.sub("", line) for line in coloured]
        if any(re.search(pattern, line) for line in lines):
            seen[pattern] = coloured
            return lines
        time.sleep(0.05)
    raise AssertionError(f"{pattern} didn't come: {lines}")


@pytest.mark.parametrize("width", WIDTHS)
def test_values_are_whole_at_every_moment(width: int, terminal: Callable[[int], Callable[[], list[str]]]) -> None:
    read = terminal(width)
    seen: dict[str, list[str]] = {}
    moving = until(read, r"[2-5]/6 ", seen)
    validating = until(read, r"val(idating)? 2", seen)
    ended = until(read, r"that was all", seen)
    # One line, with the loss first and whole.
    assert len(moving) == 2 and re.search(r" loss:? \d+\.\d+ .*\ba\w*:? \d", moving[1]), moving
    assert re.search(r"mae:? \d+\.\d+", moving[1]), moving
    assert re.search("val(idating)? 2", validating[-1]) and re.search(r"loss:? \d+\.\d+", validating[-1]), validating
    for number in (1, 2):
        start = next(place for place, line in enumerate(ended) if line == f"Epoch {number}/2")
        line = " ".join(part.strip() for part in ended[start + 1 : start + 5])
        assert re.search(r"loss: \d+\.\d{4}", line) and re.search(r"val_accuracy: \d\.\d{4}", line), line
    text = " ".join(line.strip() for line in ended)
    assert "It ended because all its epochs were done." in text and "The model holds the weights of epoch 2" in text
    if KEPT:
        pages = zip(("moving", "validating", "ended"), seen.values(), strict=True)
        keep(Path(KEPT, f"terminal-{width}.png"), dict(pages), width)


def keep(path: Path, pages: dict[str, list[str]], width: int) -> None:
    """Make a picture of what a terminal showed at some moments."""
    from playwright.sync_api import sync_playwright
    from rich.console import Console
    from rich.terminal_theme import MONOKAI
    from rich.text import Text

    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(file=nowhere, record=True, width=width, force_terminal=True, color_system="truecolor")
        for name, lines in pages.items():
            console.print(Text(f"# {name}", style="dim"))
            for line in lines:
                console.print(Text.from_ansi(line), no_wrap=True, overflow="crop")
    page = console.export_html(theme=MONOKAI, inline_styles=True, code_format=_PAGE)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        shown = opened.new_page(viewport={"width": 9 * width + 40, "height": 300})
        shown.set_content(page)
        shown.screenshot(path=path, full_page=True)
        opened.close()
