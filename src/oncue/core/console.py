"""Where messages go, and what the reader's screen can show.

Not done with rich's `Console`: `import oncue.callbacks` needs this, and rich alone would take 87 ms of it, this 24
(`python -X importtime -c "import rich.console"`).
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

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
    return in_notebook() or (is_terminal() and os.environ.get("TERM") != "dumb")


def in_notebook() -> bool:
    """Return whether stdout is that of a notebook's cell."""
    notebook = sys.modules.get("ipykernel.iostream")
    return notebook is not None and isinstance(sys.stdout, notebook.OutStream)


def has_colour() -> bool:
    """Return whether colours may be used: on a terminal where lines can be redrawn, unless NO_COLOR is set."""
    return can_redraw() and not in_notebook() and not os.environ.get("NO_COLOR")


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


class LiveLine:
    """A line that is drawn again and again in place, where `can_redraw`.

    In a notebook it is one output of the cell, which is updated; a carriage return would become a line for each drawing where
    the notebook is executed by a program.

    Example:
        >>> line = LiveLine()
        >>> line.end("done", "done")
        done
    """

    def __init__(self) -> None:
        self._width = 0
        self._output: Any = None

    def draw(self, plain: str, coloured: str) -> None:
        """Draw it.

        Args:
            plain: Its text.
            coloured: Its text for a terminal.
        """
        if in_notebook():
            self._show(plain)
        else:
            print_message(f"\r{coloured}{' ' * max(self._width - len(plain), 0)}", line_break=False)
        self._width = len(plain)

    def end(self, plain: str, coloured: str) -> None:
        """Put lines in its place, which stay; it may be drawn again below them."""
        width, self._width = self._width, 0
        if in_notebook():
            if self._output is not None:
                self._show("")
            print_message(plain)
        elif width or coloured != plain:
            first, *rest = plain.split("\n")
            padding = " " * max(width - len(first), 0)
            print_message("\n".join(["\r" + coloured.split("\n")[0] + padding, *rest]))
        else:
            print_message(plain)

    def leave(self) -> None:
        """Let what was drawn last stay."""
        if self._width and not in_notebook():
            print_message("")
        self._width = 0

    def _show(self, text: str) -> None:
        from IPython.display import display

        # What is text for a program that reads the notebook, too.
        content = {"text/plain": text}
        if self._output is None:
            self._output = display(content, raw=True, display_id=True)
        else:
            self._output.update(content, raw=True)


def visible(text: str) -> str:
    r"""Return text that comes from anywhere, so that it can't move the cursor or colour the screen.

    Example:
        >>> visible("a\x1b[31mb")
        'a?[31mb'
    """
    return "".join(character if character.isprintable() else "?" for character in text)


def is_terminal() -> bool:
    """Return whether stdout is a terminal, where lines that are too long break in the middle of words."""
    isatty = getattr(sys.stdout, "isatty", None)
    try:
        return bool(isatty is not None and isatty())
    except ValueError:
        # A closed file.
        return False


_UNIT = re.compile(r"(\d) (s|ms|min|h|%|MB|kB)\b")


def wrapped(text: str, width: int | None = None) -> str:
    """Return text whose lines are broken between words, but not between a number and its unit.

    Args:
        text: Lines; those that begin with spaces go on with more of them.
        width: The most characters of a line; that of the terminal if None, or no limit where stdout is none.

    Example:
        >>> print(wrapped("It ended because all its epochs were done.", 24))
        It ended because all its
          epochs were done.
        >>> print(wrapped("Callbacks took 10.0 ms.", 20))
        Callbacks took
          10.0 ms.
    """
    if width is None:
        if not is_terminal():
            return text
        width = columns() - 1
    import textwrap

    lines = []
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        lines += textwrap.wrap(
            _UNIT.sub("\\1\u00a0\\2", line),
            max(width, 20),
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
            drop_whitespace=True,
            replace_whitespace=False,
        ) or [""]
    return "\n".join(lines).replace("\u00a0", " ")
