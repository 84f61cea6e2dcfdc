"""The pages of the site that aren't files of docs/: one for each callback, the reference, and files from elsewhere."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FACTS = ROOT / "build" / "docs"
"""Where docs/site/facts.py writes, for `make docs`."""
_FROM_ELSEWHERE = {
    "README.md": "index.md",
    "docs/README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""Pages of the site that are files of the repository outside docs/."""
SOURCES = {page: source for source, page in _FROM_ELSEWHERE.items() if source != "docs/README.md"}
_LINK = re.compile(r"\[((?:[^\[\]`]|`[^`]*`)*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_NO_HOOKS = [
    "!^_",
    "!^on_",
    "!^close$",
    "!^after_close$",
    "!^needs_of_model$",
    "!^set_(run|model|params)$",
    "!^listens_to$",
    "!^(load_)?state_dict$",
]
"""Filters of the methods that a callback's page describes: its hooks are in a table."""
_EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
_MOST_LINES = 8


def facts() -> dict[str, Any]:
    """Return what docs/site/facts.py has written."""
    found: dict[str, Any] = json.loads((FACTS / "facts.json").read_text(encoding="utf-8"))
    return found


def examples() -> list[Path]:
    """Return the examples."""
    return sorted((ROOT / "examples").glob("*.py"))


def _page_of(path: str) -> str | None:
    """Return the page of a file of the repository, None where the site hasn't it."""
    if path in _FROM_ELSEWHERE:
        return _FROM_ELSEWHERE[path]
    if path.startswith("examples/"):
        return path.removesuffix(".py") + ".md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return None


def with_links(text: str, source: str, page: str) -> str:
    """Return Markdown of the repository whose links are those of the site; links to what the site hasn't are words.

    Args:
        text: The Markdown.
        source: The file that it is in, relative to the repository.
        page: The page that it becomes.
    """

    def moved(match: re.Match[str]) -> str:
        words, link, anchor = match.groups()
        path = os.path.normpath(os.path.join(os.path.dirname(source), link)).replace(os.sep, "/")
        if not (ROOT / path).exists():
            raise ValueError(f"{source} links to {link}, which isn't there.")
        target = _page_of(path)
        if target is None:
            return words
        target = os.path.relpath(target, os.path.dirname(page) or ".").replace(os.sep, "/")
        return f"[{words}]({target}{anchor or ''})"

    return "".join(part if code else _LINK.sub(moved, part) for part, code in _parts(text))


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of Markdown, with whether they are code."""
    done = 0
    for match in _CODE.finditer(text):
        yield text[done : match.start()], False
        yield match[0], True
        done = match.end()
    yield text[done:], False


def anchor_of(heading: str) -> str:
    """Return what leads to a heading of Markdown, on the site and on GitHub.

    Example:
        >>> anchor_of("What `fit` can't do")
        'what-fit-cant-do'
    """
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def docstring_of(text: str, with_page: bool) -> str:
    r"""Return a docstring as the site shows it: griffe calls the section of examples `Examples`, ours is called `Example`.

    Args:
        text: The docstring.
        with_page: Whether it is of a callback, whose page begins with the first paragraph already.

    Example:
        >>> docstring_of("Counts.\n\nOnce.\n\nExample:\n    1", with_page=True)
        'Once.\n\nExamples:\n    1'
    """
    _, _, rest = text.partition("\n\n")
    return _EXAMPLE.sub("Examples:", rest if with_page else text)


def says(html: str, words: str) -> int:
    """Return how often a page says some words of Markdown, whatever is around them.

    Example:
        >>> says("<p>Stops <code>fit</code>, now.</p>", "Stops `fit`, now.")
        1
    """
    text = unescape(re.sub(r"<[^>]*>", "", html))
    return re.sub(r"\W+", "", text).count(re.sub(r"\W+", "", words))


def _shortened(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _MOST_LINES else [*lines[:3], "…", *lines[-4:]]


# Pages -------------------------------------------------------------------------------------------------------------------


def _guides(name: str) -> list[tuple[str, str]]:
    """Return the guides that have a section on a callback: titles, and links from the page of a callback."""
    found = []
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for heading in re.findall(r"^##+ (.+)$", text, re.MULTILINE):
            if name in re.findall(r"\w+", heading):
                title = re.search(r"^# (.+)$", text, re.MULTILINE)
                anchor = anchor_of(heading)
                found.append(
                    (f"{title[1] if title else page.stem}: {heading}".replace("`", ""), f"../{page.name}#{anchor}")
                )
    return found


def callback_page(name: str, facts: dict[str, Any]) -> str:
    """Return the page of a callback."""
    lines = [f"# {name}", "", facts["summary"], "", "```python", facts["code"], "```", ""]
    for scheme in ("light", "dark"):
        lines.append(f"![{facts['alt'] or facts['caption']}](../pictures/{name}-{scheme}.svg#only-{scheme})")
    lines += ["", facts["caption"], "{ .caption }", ""]
    guides = _guides(name)
    if guides:
        lines += ["More: " + ", ".join(f"[{title}]({link})" for title, link in guides) + ".", ""]
    lines += [f"::: {facts['place']}", ""]
    if name != "Callback":
        lines += ["    options:", f"      filters: {_NO_HOOKS}", ""]
    lines += ["## When it acts", ""]
    if facts["hooks"]:
        lines += ["| Hook | When that is | What it does |", "|---|---|---|"]
        lines += [f"| `{hook}` | {when} | {what} |" for hook, when, what in facts["hooks"]]
    else:
        lines.append("Its hooks do nothing: override those that you want.")
    lines += ["", *(f"- {words}" for words in facts["traits"]), ""]
    lines += ["## What it writes", ""]
    if facts["logs"]:
        lines.append("The logs of the run in the picture had " + ", ".join(f"`{one}`" for one in facts["logs"]) + ".")
    if facts["files"]:
        lines += ["", "It left", "", *(f"- `{one}`" for one in facts["files"])]
    if facts["journal"]:
        lines += ["", "The journal has", "", "```text", *_shortened(facts["journal"]), "```"]
    if not (facts["logs"] or facts["files"] or facts["journal"]):
        lines.append("Nothing.")
    lines += ["", "## What a resumed run gets back", ""]
    inside = "what it holds inside"
    named = [*(f"`{one}`" for one in facts["state"]), *([inside] if facts["hidden_state"] else [])]
    lines += [", ".join(named) + "." if named else "It keeps nothing that a resumed run would need.", ""]
    return "\n".join(lines)


def _list_page(title: str, words: str, cards: Iterable[list[str]]) -> str:
    """Return a page of cards, each with its lines."""
    lines = [f"# {title}", "", words, "", '<div class="cards" markdown>', ""]
    for card in cards:
        lines += ['<div class="card" markdown>', "", *card, "", "</div>", ""]
    return "\n".join([*lines, "</div>", ""])


def callbacks_index(facts: dict[str, Any]) -> str:
    """Return the page that lists the callbacks."""
    cards = []
    for name, one in facts.items():
        pictures = [f"[![](../pictures/{name}-{one}.svg#only-{one})]({name}.md)" for one in ("light", "dark")]
        cards.append([f"**[{name}]({name}.md)**", "", *pictures, "", one["summary"]])
    return _list_page("Callbacks", "Each with a picture of a run in which it did what it is for.", cards)


def _described_in(facts: dict[str, Any]) -> dict[str, str]:
    """Return where each class and function is described: on the page of a callback, or of one module."""
    found = {one["place"]: f"callbacks/{name}" for name, one in facts["callbacks"].items()}
    # What the package itself has is described where it is at home.
    for module in (*(name for name in facts["names"] if name != "oncue"), "oncue"):
        for place in facts["names"][module]:
            found.setdefault(place, module)
    return found


def reference_page(module: str, facts: dict[str, Any]) -> str:
    """Return the page of a module."""
    described_in = _described_in(facts)
    lines = [f"# {module}", "", facts["modules"][module], ""]
    elsewhere = []
    for place, names in sorted(facts["names"][module].items(), key=lambda item: item[1][0].lower()):
        if described_in[place] != module:
            elsewhere += [f"[`{name}`][{place}]" for name in names]
            continue
        lines += [f"::: {place}", ""]
        others = [name for name in names if not f".{place}".endswith(f".{name}")]
        if others:
            lines += ["Also " + ", ".join(f"`{module}.{name}`" for name in others) + ".", ""]
    if elsewhere:
        lines[4:4] = ["Described elsewhere: " + ", ".join(elsewhere) + ".", ""]
    return "\n".join(lines)


def reference_index(facts: dict[str, Any]) -> str:
    """Return the page that lists the modules."""
    words = "All that is oncue's own. Every other name of Keras is Keras's, [where it is installed](../coming_from_keras.md)."
    cards = [[f"**[`{module}`]({module}.md)**", "", about] for module, about in facts["modules"].items()]
    return _list_page("Reference", words, cards)


def example_page(path: Path) -> str:
    """Return the page of an example."""
    return f"# examples/{path.name}\n\n```python\n{path.read_text(encoding='utf-8')}```\n"


def all_pages(facts: dict[str, Any]) -> dict[str, str]:
    """Return all of these pages, each with its Markdown."""
    found = {page: (ROOT / source).read_text(encoding="utf-8") for page, source in SOURCES.items()}
    found |= {f"examples/{path.stem}.md": example_page(path) for path in examples()}
    found |= {f"callbacks/{name}.md": callback_page(name, one) for name, one in facts["callbacks"].items()}
    found["callbacks/index.md"] = callbacks_index(facts["callbacks"])
    found |= {f"reference/{module}.md": reference_page(module, facts) for module in facts["modules"]}
    found["reference/index.md"] = reference_index(facts)
    return found


def navigation(facts: dict[str, Any]) -> dict[str, list[Any]]:
    """Return what stands in the navigation for the words of mkdocs.yml."""
    return {
        "CALLBACKS": ["callbacks/index.md", *({name: f"callbacks/{name}.md"} for name in facts["callbacks"])],
        "REFERENCE": ["reference/index.md", *({module: f"reference/{module}.md"} for module in facts["modules"])],
        "EXAMPLES": [{path.name: f"examples/{path.stem}.md"} for path in examples()],
    }
