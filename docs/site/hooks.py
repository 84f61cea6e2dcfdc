"""What mkdocs asks of the site: to add the generated pages and pictures, and to let links lead to pages.

`docs/site/facts.py` has written what there is to tell into build/docs before. Whatever is missing is an error.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))

import pages

_REMOTE = re.compile(r"<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)=\"?(?:https?:)?//[^\s>\"]+")


def _facts() -> dict[str, Any]:
    try:
        return pages.facts()
    except FileNotFoundError as error:
        raise PluginError(f"{error.filename} isn't there: `make docs` makes it before it builds the site.") from error


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put what is generated into the navigation."""
    made = pages.navigation(_facts())

    def filled(entry: Any) -> Any:
        if isinstance(entry, dict):
            return {title: filled(inside) for title, inside in entry.items()}
        return [filled(one) for one in entry] if isinstance(entry, list) else made.get(entry, entry)

    config.nav = filled(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are generated, and the pictures."""
    for page, text in pages.all_pages(_facts()).items():
        files.append(File.generated(config, page, content=text))
    for picture in sorted((pages.FACTS / "pictures").glob("*.svg")):
        files.append(File.generated(config, f"pictures/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to pages of the site."""
    name = page.file.src_uri
    if name == "index.md":
        page.meta["hide"] = ["navigation"]
    source = pages.SOURCES.get(name) if page.file.generated_by else f"docs/{name}"
    return markdown if source is None else pages.with_links(markdown, source, name)


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that would fetch something from elsewhere, and a callback's page that says twice what it does."""
    for name, one in _facts()["callbacks"].items():
        times = pages.says(
            Path(config.site_dir, "callbacks", f"{name}.html").read_text(encoding="utf-8"), one["summary"]
        )
        if times != 1:
            raise PluginError(f"The page of {name} says {times} times: {one['summary']}")
    for path in Path(config.site_dir).rglob("*.html"):
        found = _REMOTE.search(path.read_text(encoding="utf-8"))
        if found is not None:
            raise PluginError(f"{path.name} would fetch {found[0]}")
