"""Why something can't become a graph, in a sentence."""

from __future__ import annotations

import linecache
import traceback
from pathlib import Path
from types import TracebackType

import torch

from oncue import torch_private

_NOT_THE_USERS = (f"{Path(torch.__file__).parents[1]}/", f"{Path(torch_private.__file__).parent}/")
"""Where installed libraries lie, and oncue."""


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
    """Return the innermost line of a traceback that belongs to neither torch nor oncue."""
    for frame in reversed(traceback.extract_tb(trace)):
        if frame.filename.startswith(_NOT_THE_USERS) or not frame.lineno:
            continue
        code = linecache.getline(frame.filename, frame.lineno).strip()
        if code:
            return f"`{code}` ({Path(frame.filename).name}, line {frame.lineno})"
    return None


def _layer_of(trace: TracebackType | None) -> str | None:
    """Return the class of the innermost module whose code it was, other than the whole model."""
    owners = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(trace)]
    modules = [owner for owner in owners if isinstance(owner, torch.nn.Module)]
    return type(modules[-1]).__name__ if modules and modules[-1] is not modules[0] else None
