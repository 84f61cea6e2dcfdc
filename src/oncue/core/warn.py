"""Warnings that point at the user's line, however deep in oncue their reason was found."""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from oncue.core.process import process

_ONCUE = os.path.dirname(os.path.dirname(__file__)) + os.sep
# Through these a user's line reaches oncue without calling it: a layer is called by torch, a callback by Keras's `fit`,
# a run is started by `with`, an old module is found by an import.
_BETWEEN = ("contextlib", "importlib", "keras", "torch")


_kept: ContextVar[list[tuple[str, type[Warning]]] | None] = ContextVar("kept", default=None)


@contextmanager
def kept(said: list[tuple[str, type[Warning]]]) -> Iterator[None]:
    """Collect the warnings of this thread, on which no line is the user's; another thread gives them to `warn`.

    Args:
        said: The texts and categories are appended to it.

    Example:
        >>> said = []
        >>> with kept(said):
        ...     warn("The rate is 0.")
        >>> said
        [('The rate is 0.', <class 'UserWarning'>)]
    """
    before = _kept.set(said)
    try:
        yield
    finally:
        _kept.reset(before)


def warn(text: str, category: type[Warning] = UserWarning) -> None:
    """Give a warning at the innermost line that is the user's own; within `kept`, keep it.

    Of processes that train together, the main one gives it: all of them come to the same lines.

    Args:
        text: What is wrong, and what to do about it.
        category: The kind of warning.

    Example:
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     warn("The rate is 0.")
        >>> caught[0].filename
        '<doctest ...>'
    """
    said = _kept.get()
    if said is not None:
        said.append((text, category))
        return
    if not process.speaks:
        return
    frame = inspect.currentframe()
    skipped = (_ONCUE, "<frozen importlib", *_places(_BETWEEN))
    while frame is not None and frame.f_back is not None and frame.f_code.co_filename.startswith(skipped):
        frame = frame.f_back
    if frame is None:
        raise RuntimeError("this Python keeps no stack of frames, so that no line can be named")
    warnings.warn_explicit(
        text,
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        # Code run by `exec` may have no module; without a name, Python would drop the warning.
        module=frame.f_globals.get("__name__") or "<string>",
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _places(modules: tuple[str, ...]) -> list[str]:
    """Return the folder of each package and the file of each module, of those that are loaded."""
    files = [getattr(sys.modules.get(module), "__file__", None) for module in modules]
    return [file.removesuffix("__init__.py") for file in files if file]
