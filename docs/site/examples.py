"""Docstrings of this package as griffe wants them: its section of examples is called `Examples`, ours `Example`."""

from __future__ import annotations

import re
from typing import Any

import griffe

_HEADING = re.compile(r"^Example:$", re.MULTILINE)


class ExamplesOfDocstrings(griffe.Extension):
    """Renames the section before it is parsed."""

    def on_object(self, *, obj: Any, **further: Any) -> None:
        """Change an object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = _HEADING.sub("Examples:", obj.docstring.value)
