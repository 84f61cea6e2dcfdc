"""Where messages go, and what the reader's screen can show.

Not done with rich's `Console`: `import oncue.callbacks` needs this, and rich alone would take 87 ms of it, this 24
(`python -X importtime -c "import rich.console"`).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

logger = logging.getLogger("oncue")
_interactive = True
_silent: ContextVar[bool] = ContextVar("_silent", default=False)


def enable_interactive_logging() -> None:
    """Print messages and progress to stdout (the default)."""
    global _interactive
    _interactive = True


def disable_interactive_logging() -> None:
    """Send messages to the logger "oncue" instead of stdout."""
    global _interactive
    _interactive = False


def is_interactive_logging_enabled() -> bool:
    """Return whether messages are printed to stdout."""
    return _interactive


@contextmanager
def silenced() -> Iterator[None]:
    """Print nothing in the block; for those processes of a run for which another one speaks.

    Example:
        >>> with silenced():
        ...     print_message("Epoch 1/2")
    """
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def print_message(message: str, line_break: bool = True) -> None:
    """Print a message, or log it when interactive logging is off.

    A closed stdout must not end a training run that lasts the night, so a broken pipe turns printing off and is logged.

    Args:
        message: What to say.
        line_break: Whether to end the line.

    Example:
        >>> print_message("Epoch 1/2")
        Epoch 1/2
    """
    global _interactive
    if _silent.get():
        return
    if not _interactive:
        logger.info(message)
        return
    stream = sys.stdout
    if stream is None:
        return
    text = message + "\n" if line_break else message
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = getattr(stream, "encoding", None) or "ascii"
            stream.write(text.encode(encoding, "replace").decode(encoding))
        stream.flush()
    except (BrokenPipeError, ValueError) as error:
        _interactive = False
        logger.warning("stdout can't be written to (%s); messages go to this logger from now on", error)


def can_redraw() -> bool:
    """Return whether a line on stdout can be drawn again in place: on a terminal or in a notebook."""
    if not _interactive:
        return False
    notebook = sys.modules.get("ipykernel.iostream")
    if notebook is not None and isinstance(sys.stdout, notebook.OutStream):
        return True
    isatty = getattr(sys.stdout, "isatty", None)
    try:
        return bool(isatty is not None and isatty() and os.environ.get("TERM") != "dumb")
    except ValueError:
        # A closed file.
        return False


def has_colour() -> bool:
    """Return whether colours may be used: where lines can be redrawn, unless NO_COLOR is set."""
    return can_redraw() and not os.environ.get("NO_COLOR")


def can_encode(text: str) -> bool:
    """Return whether stdout's encoding has the characters of `text`."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def columns() -> int:
    """Return the width of the terminal, at least 20; 80 where it says none."""
    try:
        return max(os.get_terminal_size(sys.stdout.fileno()).columns or 80, 20)
    except (OSError, ValueError, AttributeError):
        return 80
