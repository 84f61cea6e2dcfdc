"""Commands: what a run can be told while it goes on, as files in a folder of it."""

from __future__ import annotations

import json
import math
import os
import re
import stat
import time
import uuid
from pathlib import Path
from typing import Any

from oncue.core.files import replace_file
from oncue.core.suggest import unknown

WORDS = ("stop", "save", "pause", "go", "rate")
"""All that is understood."""
FOLDER = "control"
"""The folder of commands in a run's folder."""
LISTENS = "listening.json"
"""The file in it that is there while a run listens."""

_LONGEST = 1 << 12
_MOST = 1000


def command_of(word: str, value: str | None = None) -> dict[str, Any]:
    """Return a command as its file has it.

    Args:
        word: One of `WORDS`.
        value: For "rate": a number, or "x" and what the rate is multiplied with.

    Raises:
        ValueError: For another word, and a value that doesn't belong to it.

    Example:
        >>> command_of("rate", "x0.5")
        {'word': 'rate', 'value': 'x0.5'}
    """
    if word not in WORDS:
        raise unknown("command", word, WORDS)
    if word != "rate":
        if value is not None:
            raise ValueError(f"`{word}` takes no value; got {value!r}.")
        return {"word": word}
    if factor_or_rate(value) is None:
        raise ValueError(f"`rate` needs a number above 0, such as 1e-4, or a factor, such as x0.5; got {value!r}.")
    return {"word": word, "value": value}


def factor_or_rate(value: Any) -> tuple[bool, float] | None:
    """Return whether a text is a factor, and its number; None when it is neither factor nor rate.

    Example:
        >>> factor_or_rate("x0.5"), factor_or_rate("1e-4"), factor_or_rate("-1"), factor_or_rate("fast")
        ((True, 0.5), (False, 0.0001), None, None)
    """
    number = r"(x?)([0-9]{1,20}(?:\.[0-9]{0,20})?(?:e[+-]?[0-9]{1,3})?)"
    found = re.fullmatch(number, value) if isinstance(value, str) else None
    if found is None:
        return None
    rate = float(found[2])
    return (bool(found[1]), rate) if 0 < rate < math.inf else None


def tell(folder: str | os.PathLike[str], command: dict[str, Any]) -> str:
    """Put a command where a run finds it.

    Args:
        folder: The folder of commands.
        command: What `command_of` returned.

    Returns:
        The name of its file.

    Raises:
        FileNotFoundError: When no run listens there.
        OSError: When it can't be written.
    """
    if not Path(folder, LISTENS).is_file():
        raise FileNotFoundError(
            f"No run listens in '{os.fspath(folder)}'. Give the run a `Control`, or `RunFolder(..., control=True)`."
        )
    name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.json"
    replace_file(Path(folder, name), json.dumps(command).encode("ascii"))
    return name


def read(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return the command in a file, with the user that the file belongs to; None for anything else.

    Args:
        path: The file, which anybody may have put there.
    """
    try:
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LONGEST:
            return None
        plain = json.loads(Path(path).read_bytes())
        command = command_of(plain["word"], plain.get("value"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return {**command, "user": _owner(path)}


def waiting(folder: str | os.PathLike[str]) -> list[str]:
    """Return the names of the command files in a folder, in the order in which they were put there."""
    try:
        names = [name for name in os.listdir(folder) if re.fullmatch(r"[0-9]{20}-[0-9a-f]{8}\.json", name)]
    except OSError:
        return []
    return sorted(names)[:_MOST]


def _owner(path: str | os.PathLike[str]) -> str:
    try:
        return Path(path).owner()
    except (OSError, KeyError, NotImplementedError):
        # Not every system has owners, and not every owner a name.
        return "somebody"
