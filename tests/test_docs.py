"""Every code block of the pages, and every example, runs; and the pages name what there is."""

from __future__ import annotations

import re
import runpy
from importlib.util import find_spec
from pathlib import Path

import pytest

import oncue
from oncue.core.hooks import ALIASES, HOOKS
from pages import anchor_of

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What needs libraries that aren't here runs in the environments of `make hosts`.
LIBRARIES = ("accelerate", "ignite", "lightning", "poutyne", "skorch", "transformers")
ELSEWHERE = [name for name in LIBRARIES if find_spec(name) is None]
EXAMPLES = [path for path in sorted((ROOT / "examples").glob("*.py")) if path.stem not in ELSEWHERE]
_FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_IMPORT = re.compile(r"^(?:import|from) (\w+)", re.MULTILINE)


def _blocks() -> list[tuple[str, int, str]]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            if not _libraries(match[1]) & set(ELSEWHERE):
                found.append((page.name, text.count("\n", 0, match.start(1)) + 1, match[1]))
    return found


def _libraries(code: str) -> set[str]:
    return set(_IMPORT.findall(code)) & set(LIBRARIES)


def _name(page: str, line: int, code: str) -> str:
    """Return the name of a block's test, with the libraries by which `make hosts` chooses it."""
    return "-".join([f"{page}:{line}", *sorted(_libraries(code))])


BLOCKS = _blocks()


def test_the_blocks_are_found() -> None:
    assert {"README.md", "hooks.md"} <= {page for page, _, _ in BLOCKS}


@pytest.mark.parametrize(
    ("page", "line", "code"),
    [
        pytest.param(*block, id=_name(*block), marks=[pytest.mark.slow] * ("jit_compile=True" in block[2]))
        for block in BLOCKS
    ],
)
def test_code_block(page: str, line: int, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # The leading lines let a traceback name the line of the page.
    exec(compile("\n" * (line - 1) + code, page, "exec"), {"__name__": "__main__"})


# This one starts and kills processes.
SLOW_EXAMPLES = {"survive.py"}


@pytest.mark.parametrize(
    "example",
    [pytest.param(path, id=path.name, marks=[pytest.mark.slow] * (path.name in SLOW_EXAMPLES)) for path in EXAMPLES],
)
def test_example(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(example)])
    try:
        runpy.run_path(str(example), run_name="__main__")
    except SystemExit as end:
        assert end.code in (None, 0)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)[^):]*\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_to_headings(page: Path) -> None:
    def anchors(path: Path) -> set[str]:
        return {anchor_of(one) for one in re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)}

    links = re.findall(r"\]\(([^)#:\s]*)#([^)\s]+)\)", page.read_text(encoding="utf-8"))
    missing = [(path, to) for path, to in links if to not in anchors(page.parent / path if path else page)]
    assert not missing


def test_the_files_that_contributing_names_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:src|tests|docs)/[\w/.]+)`", text))
    assert "src/oncue/core/hooks.py" in named
    # Planned, as the table says.
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_the_readme_lists_the_callbacks() -> None:
    row = re.search(r"^\| Callbacks \|(.*)\|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert row is not None
    public = {name for name in oncue.callbacks.__all__ if isinstance(getattr(oncue.callbacks, name), type)}
    assert set(re.findall(r"`(\w+)`", row[1])) == public


def test_the_readme_lists_the_optimizers() -> None:
    row = re.search(r"^\| Optimizers \|(.*)\|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert row is not None
    public = {name for name in oncue.optimizers.__all__ if isinstance(getattr(oncue.optimizers, name), type)}
    # Those that only Keras has are Keras's own.
    public = {name for name in public if getattr(oncue.optimizers, name).__module__.startswith("oncue.")}
    assert set(re.findall(r"`(\w+)`", row[1])) == public - {"Optimizer", "TorchOptimizer"}


def test_the_page_on_hooks_lists_every_hook_with_its_arguments() -> None:
    text = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)\(([\w, ]*)\)` \|", text, re.MULTILINE))
    assert rows == {hook: ", ".join(arguments) for hook, arguments in HOOKS.items()}
    assert all(f"`{old}`" in text for old in ALIASES)
