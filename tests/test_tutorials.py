"""Tutorials are walked as a reader walks them, and print what the page says. tests/test_docs.py runs their other blocks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import walk

PAGES = [
    page
    for page in sorted((walk.ROOT / "docs" / "tutorials").glob("*.md"))
    if "```sh\n" in page.read_text(encoding="utf-8")
]
_NUMBER = re.compile(r"-?\d[\d.,]*(?:e[+-]?\d+)?(?: (?:ms|s|min)\b)?")


def _said(text: str) -> list[str]:
    """Return the lines, without their numbers: those of another machine are others."""
    return [_NUMBER.sub("#", line).strip() for line in text.splitlines() if line.strip()]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_walked(page: Path, tmp_path: Path) -> None:
    seen = 0
    for typed in walk.walk(page, tmp_path):
        said = _said(typed.said)
        for text in typed.shown:
            assert not [line for line in _said(text) if line not in said], typed.said
            seen += 1
    assert seen


def test_pages_are_walked() -> None:
    assert {"first_run", "overnight"} <= {page.stem for page in PAGES}
