"""Docstrings as the site shows them: what griffe, which reads them, is told to change."""

from __future__ import annotations

import griffe

import pages


class Docstrings(griffe.Extension):
    """Changes docstrings before they are parsed."""

    def __init__(self) -> None:
        super().__init__()
        self._with_page = {one["place"] for one in pages.facts()["callbacks"].values()}

    def on_object(self, *, obj: griffe.Object, **further: object) -> None:
        """Change an object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = pages.docstring_of(obj.docstring.value, with_page=obj.path in self._with_page)
