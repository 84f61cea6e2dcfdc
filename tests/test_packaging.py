"""The requirements for pip are consistent, and work in any network."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import oncue
from oncue.core import version

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
)


def _requirements() -> list[Requirement]:
    texts = [*PROJECT["dependencies"], *(text for extra in PROJECT["optional-dependencies"].values() for text in extra)]
    return [requirement for requirement in map(Requirement, texts) if requirement.name != "oncue"]


def test_everything_that_may_be_installed_is_pinned_within_its_range() -> None:
    for requirement in _requirements():
        assert requirement.name in PINS, f"constraints.txt lacks {requirement.name}"
        assert requirement.specifier.contains(PINS[requirement.name]), str(requirement)


def test_nothing_else_is_pinned() -> None:
    assert set(PINS) == {requirement.name for requirement in _requirements()}


def test_the_version_has_one_source() -> None:
    assert "version" in PROJECT["dynamic"] and "version" not in PROJECT
    assert re.fullmatch(r"\d+\.\d+\.\d+", version.__version__)
    assert oncue.__version__ == f"{version.KERAS}+oncue.{version.__version__}"
    assert f"## {version.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_types_are_shipped() -> None:
    assert (ROOT / "src" / "oncue" / "py.typed").exists()


@pytest.mark.parametrize("name", ["Makefile", "constraints.txt", "pyproject.toml", ".ci/run"])
def test_no_index_is_named(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"https?://|index-url|find-links", text)


def test_what_an_index_shows() -> None:
    assert PROJECT["authors"] and {"license", "description", "keywords"} <= set(PROJECT)
    tested = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert tested == ["3.11", "3.12", "3.13", "3.14"] and PROJECT["requires-python"] == f">={tested[0]}"
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    for rule in whole["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        page = re.sub(rule["pattern"], rule["replacement"], page)
    # Links to files lead nowhere there, and pictures are not there.
    assert "![" not in page and "The report of a run" not in page
    assert "docs/hooks.md: every hook" in page
    assert not [link for link in re.findall(r"\]\(([^)]*)\)", page) if not link.startswith(("#", "https:"))]
