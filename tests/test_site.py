"""The site of `make docs`: every public name is in the reference, every callback has a page and a picture."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import facts
import oncue
import pages
import pictures

ROOT = Path(__file__).parents[1]


def test_the_reference_has_every_public_module() -> None:
    public = {f"oncue.{name}" for name in oncue.__all__ if isinstance(getattr(oncue, name), ModuleType)}
    assert public <= set(facts.MODULES)


def test_the_reference_has_every_public_name_with_its_words() -> None:
    found = facts.own_names()
    for module, places in found.items():
        assert places, module
        for place in places:
            if place.startswith("oncue.hosts.") and place.count(".") == 3 and place.rpartition(".")[2][0].isupper():
                continue  # its library need not be here
            home, _, name = place.rpartition(".")
            value = getattr(importlib.import_module(home), name)
            assert inspect.getdoc(value), place
    assert "oncue.callbacks.early_stopping.EarlyStopping" in found["oncue.callbacks"]
    assert found["oncue.losses"]["oncue.losses.regression.mean_squared_error"] == ["MSE", "mean_squared_error", "mse"]


def test_what_several_modules_have_is_described_once() -> None:
    told = {"modules": facts.MODULES, "names": facts.own_names(), "callbacks": {}}
    text = "\n".join(pages.reference_page(module, told) for module in facts.MODULES)
    described = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    assert len(described) == len(set(described)) > 300
    assert set(described) == {place for places in told["names"].values() for place in places}
    assert "[`Model`][oncue.models.model.Model]" in pages.reference_page("oncue", told)


def test_a_page_of_a_callback_says_once_what_it_does() -> None:
    text = "Stops `fit`, now.\n\nOnly once.\n\nExample:\n    1"
    assert pages.docstring_of(text, with_page=True) == "Only once.\n\nExamples:\n    1"
    assert pages.docstring_of(text, with_page=False).startswith("Stops `fit`, now.\n\nOnly once.")
    assert pages.says("<p>Stops <code>fit</code>,\nnow.</p><p>Stops fit&#44; now.</p>", "Stops `fit`, now.") == 2


def test_every_callback_has_a_picture() -> None:
    assert set(pictures.PICTURES) == set(facts.pages()), "docs/site/pictures.py draws what each callback does in a run"


@pytest.mark.parametrize("name", facts.pages())
def test_a_callback_has_a_page_with_its_picture(name: str, tmp_path: Path) -> None:
    told = facts.facts_of(name, tmp_path)
    for scheme in ("light", "dark"):
        drawn = (tmp_path / f"{name}-{scheme}.svg").read_text(encoding="utf-8")
        assert drawn.count("<path") + drawn.count("<use") > 20
        assert str(tmp_path) not in drawn and len(drawn) < 200_000
    page = pages.callback_page(name, told)
    assert f"../pictures/{name}-light.svg#only-light" in page and f"::: {told['place']}" in page
    assert told["code"] in page and told["caption"] in page and told["summary"].endswith(".")
    assert "tmp" not in "".join(told["journal"]) + "".join(told["files"])


def test_a_picture_is_the_same_each_time(tmp_path: Path) -> None:
    drawn = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        facts.facts_of("EarlyStopping", tmp_path / folder)
        drawn.append((tmp_path / folder / "EarlyStopping-dark.svg").read_bytes())
    assert drawn[0] == drawn[1]


def test_the_navigation_has_every_page() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r": ([\w/]+\.md)$", text, re.MULTILINE))
    written = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")} - {"README.md"}
    assert named == written | set(pages.SOURCES)
    assert set(re.findall(r": ([A-Z]+)$", text, re.MULTILINE)) == {"CALLBACKS", "REFERENCE", "EXAMPLES"}


def test_links_of_the_repository_become_links_of_the_site() -> None:
    text = "[a](docs/hooks.md#ends) [`b`](examples/loop.py) [c](Makefile) [d](https://a.b/c.md)\n```python\n[e](docs/no.md)\n```\n"
    assert pages.with_links(text, "README.md", "index.md") == (
        "[a](hooks.md#ends) [`b`](examples/loop.md) c [d](https://a.b/c.md)\n```python\n[e](docs/no.md)\n```\n"
    )
    assert pages.with_links("[a](../README.md)", "docs/tutorials/x.md", "tutorials/x.md") == "[a](../index.md)"
    with pytest.raises(ValueError, match=r"docs/a\.md links to no\.md, which isn't there"):
        pages.with_links("[a](no.md)", "docs/a.md", "a.md")
