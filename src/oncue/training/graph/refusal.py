"""Why something can't become a graph, in a sentence."""

from __future__ import annotations

import linecache
import traceback
from pathlib import Path
from types import TracebackType

import torch

from oncue import torch_private

_NOT_THE_USERS = (
    f"{Path(torch.__file__).parents[1]}/",
    f"{Path(torch_private.__file__).parent}/",
    f"{Path(linecache.__file__).parent}/",
)
"""Where installed libraries lie, oncue, and what comes with Python."""


class RefusalError(RuntimeError):
    """A step can't be a graph; its text says why, as the end of a sentence."""


def reason_of(error: BaseException) -> str:
    r"""Return why a step can't be a graph, with the line of the user's code that it is about.

    Args:
        error: What was raised while the step was traced or compiled.

    Example:
        >>> reason_of(RuntimeError("Unsupported call\nMore about it"))
        'Unsupported call'
    """
    text = str(error).strip() or type(error).__name__
    if not isinstance(error, RefusalError):
        text = torch_private.tracing_problem(error) or text.splitlines()[0].rstrip(".")
    line = _line_of(error.__traceback__)
    if line:
        return f"{text}, at {line}"
    layer = _layer_of(error.__traceback__)
    return f"{text}, in `{layer}`" if layer else text


def _line_of(trace: TracebackType | None) -> str | None:
    """Return the innermost line of a traceback that is the user's."""
    lines = (line_of(frame.filename, frame.lineno) for frame in reversed(traceback.extract_tb(trace)))
    return next(filter(None, lines), None)


def line_of(filename: str, number: int | None) -> str | None:
    """Return a line of the user's code, with where it is; None for a line of anything else."""
    code = linecache.getline(filename, number).strip() if number and is_the_users(filename) else ""
    return f"`{code}` ({Path(filename).name}, line {number})" if code else None


def is_the_users(filename: str) -> bool:
    """Return whether a file is none of an installed library, of oncue or of Python."""
    return not filename.startswith(_NOT_THE_USERS)


def _layer_of(trace: TracebackType | None) -> str | None:
    """Return the class of the innermost module whose code it was, other than the whole model."""
    owners = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(trace)]
    modules = [owner for owner in owners if isinstance(owner, torch.nn.Module)]
    return type(modules[-1]).__name__ if modules and modules[-1] is not modules[0] else None
