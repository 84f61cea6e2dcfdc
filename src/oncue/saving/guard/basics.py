"""Opening files, refusing files, and parsing their JSON."""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NoReturn

from oncue.core.bounded_json import MAX_DEPTH as MAX_DEPTH, MEGABYTE as MEGABYTE, bounded_json
from oncue.core.interrupts import undivided

MAX_JSON_BYTES = 16 * MEGABYTE
MAX_ENTRIES = 100_000


class MissingFileError(FileNotFoundError, ValueError):
    """The file is not there. Keras raises either class, depending on the format."""


def refuse(source: Any, rule: str) -> NoReturn:
    """Raise the error for a file that breaks a rule.

    Args:
        source: The file.
        rule: What is wrong, and what was expected.

    Raises:
        ValueError: Always.

    Example:
        >>> refuse("a.keras", "it is empty.")
        Traceback (most recent call last):
        ...
        ValueError: 'a.keras' was not loaded: it is empty.
    """
    raise ValueError(f"{str(source)!r} was not loaded: {printable(rule)}")


def printable(text: str) -> str:
    r"""Return a text, of which parts come from a file, without characters that a terminal would carry out.

    Example:
        >>> printable("a layer named \x1b[2J")
        'a layer named \\x1b[2J'
    """
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a regular file for reading; a pipe or a device would block or never end."""
    with _opened(path) as file:
        yield file


@undivided
def _opened(path: str | os.PathLike[str]) -> BinaryIO:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise MissingFileError(f"There is no file {os.fspath(path)!r}.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        refuse(path, "it is not a regular file.")
    return os.fdopen(descriptor, "rb")


def read_json(content: bytes | str, source: Any) -> dict[str, Any]:
    """Parse a JSON object of bounded size and depth, without duplicate keys.

    Args:
        content: The text.
        source: The file, for messages.

    Returns:
        The object.

    Raises:
        ValueError: When it is something else.

    Example:
        >>> read_json('{"a": [1]}', "file")
        {'a': [1]}
    """
    try:
        value = bounded_json(
            content.encode("utf-8", "replace") if isinstance(content, str) else content, MAX_JSON_BYTES
        )
    except ValueError as error:
        refuse(source, f"{error}.")
    if not isinstance(value, dict):
        refuse(source, f"its JSON must be an object, not a {type(value).__name__}.")
    return value


_LARGEST_SAMPLE = 1 << 28
_LONGEST_NAME = 1024
_MOST_LAYERS = 5000
_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def check_entry(key: str, value: Any, source: Any) -> None:
    """Refuse an entry of a configuration that no model has.

    These are the shape of a sample so large that weights of that size would be made, a name that is longer than any, and one
    with control characters, which a terminal would carry out when it shows the model.

    Args:
        key: The name of the entry; "name", and those that end in "shape", are looked at.
        value: The entry.
        source: The file, for messages.

    Raises:
        ValueError: For such an entry.

    Example:
        >>> check_entry("batch_shape", [None, 4], "m.keras")
    """
    if key == "name" and isinstance(value, str):
        if len(value) > _LONGEST_NAME or "\n" in value or _CONTROLS.search(value):
            refuse(source, f"it has the name {value[:100]!r}, which is longer than any, or has control characters.")
    elif key.endswith("shape") and isinstance(value, list):
        if math.prod([size for size in value if type(size) is int]) > _LARGEST_SAMPLE:
            refuse(source, f"its {key} {value[:8]} is larger than any sample.")


def check_layers(config: Any, source: Any) -> None:
    """Refuse a configuration of more layers than any model has, those of models inside it too.

    Args:
        config: The configuration.
        source: The file, for messages.

    Raises:
        ValueError: For such a configuration.

    Example:
        >>> check_layers({"config": {"layers": [{}] * 10}}, "m.keras")
    """
    count, waiting = 0, [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for key in ("layers", "cells"):
                parts = value.get(key)
                count += len(parts) if isinstance(parts, (list, dict)) else 0
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    if count > _MOST_LAYERS:
        refuse(source, f"it has {count} layers, more than {_MOST_LAYERS}.")


def check_lambda(config: Any, source: Any) -> None:
    """Refuse a Lambda with code in the file: its functions must be named, so that they are found among Keras's and the user's.

    Args:
        config: The configuration of the layer.
        source: The file, for messages.

    Raises:
        ValueError: When a function is anything but a name.
    """
    parts = config if isinstance(config, dict) else {}
    for part in ("function", "output_shape", "mask"):
        by_name = parts.get(f"{part}_type", "function") in ("function", "raw")
        given = parts.get(part)
        listed = isinstance(given, list) and any(isinstance(item, str) for item in given)
        if not by_name or (part == "function" and not isinstance(given, (str, dict))) or listed:
            refuse(
                source,
                f"the `{part}` of its Lambda is code in the file. Make the model by its own code, and load its weights with "
                "`load_weights`; or save it with a function that has a name, and give that in `custom_objects`.",
            )
