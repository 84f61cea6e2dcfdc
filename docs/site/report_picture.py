"""The picture of a report in README.md: that of docs/tutorials/first_run.md, as Chromium shows it.

    python docs/site/report_picture.py

writes docs/pictures/report.png. It needs what `make screenshots` installs.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from walk import ROOT, walk

TARGET = ROOT / "docs" / "pictures" / "report.png"
SIZE = {"width": 1120, "height": 870}


def main() -> int:
    """Walk the tutorial until there is a report, and take a picture of it."""
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        for typed in walk(ROOT / "docs" / "tutorials" / "first_run.md", Path(scratch)):
            if "oncue report" in typed.commands:
                break
        opened = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = opened.new_page(viewport=SIZE, color_scheme="light", device_scale_factor=1.25)
        page.goto((Path(scratch) / "walk" / "report.html").as_uri())
        page.wait_for_function("[...document.querySelectorAll('.chart')].every(chart => chart.querySelector('svg'))")
        taken = Image.open(io.BytesIO(page.screenshot()))
        opened.close()
    TARGET.parent.mkdir(exist_ok=True)
    # A few colours are enough, and a tenth of the bytes.
    taken.convert("RGB").quantize(64).save(TARGET, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
