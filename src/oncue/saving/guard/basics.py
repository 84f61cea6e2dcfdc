"""Opening files, refusing files, and parsing their JSON."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NoReturn

MEGABYTE = 1 << 20
MAX_JSON_BYTES = 16 * MEGABYTE
MAX_DEPTH = 200
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
    raise ValueError(f"{str(source)!r} was not loaded: {rule}")


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a regular file for reading; a pipe or a device would block or never end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise MissingFileError(f"There is no file {os.fspath(path)!r}.") from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            refuse(path, "it is not a regular file.")
        yield file


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
    if len(content) > MAX_JSON_BYTES:
        refuse(source, f"its JSON has {len(content)} bytes, more than {MAX_JSON_BYTES}.")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key comes twice")
        return found

    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        value = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        refuse(source, f"its JSON is not valid ({type(error).__name__}).")
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            refuse(source, f"its JSON is nested more than {MAX_DEPTH} deep.")
        level = [
            part
            for item in level
            if isinstance(item, (dict, list))
            for part in (item.values() if isinstance(item, dict) else item)
        ]
    if not isinstance(value, dict):
        refuse(source, f"its JSON must be an object, not a {type(value).__name__}.")
    return value


_LARGEST_SAMPLE = 1 << 28


def check_shape(key: str, value: Any, source: Any) -> None:
    """Refuse a shape in a configuration that no sample has: weights of that size would be made.

    Args:
        key: The name of an entry of a configuration; those that end in "shape" are looked at.
        value: The entry.
        source: The file, for messages.

    Raises:
        ValueError: For such a shape.

    Example:
        >>> check_shape("batch_shape", [None, 4], "m.keras")
    """
    if not key.endswith("shape") or not isinstance(value, list):
        return
    if math.prod([size for size in value if type(size) is int]) > _LARGEST_SAMPLE:
        refuse(source, f"its {key} {value[:8]} is larger than any sample.")
