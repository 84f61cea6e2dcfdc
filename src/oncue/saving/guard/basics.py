"""Opening files, refusing files, and parsing their JSON."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NoReturn

from oncue.core.interrupts import undivided

MEGABYTE = 1 << 20
MAX_JSON_BYTES = 16 * MEGABYTE
MAX_DEPTH = 200
MAX_ENTRIES = 100_000
_MAX_CONTAINERS = 400_000


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
    if len(content) > MAX_JSON_BYTES:
        refuse(source, f"its JSON has {len(content)} bytes, more than {MAX_JSON_BYTES}.")
    content = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    # Each takes dozens of times the memory of its two characters.
    if content.count(b"{") + content.count(b"[") > _MAX_CONTAINERS:
        refuse(source, f"its JSON has more than {_MAX_CONTAINERS} lists and objects.")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key comes twice")
        return found

    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=unique)
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
_LONGEST_NAME = 1024
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")


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
        if len(value) > _LONGEST_NAME or _CONTROLS.search(value):
            refuse(source, f"it has the name {value[:100]!r}, which is longer than any, or has control characters.")
    elif key.endswith("shape") and isinstance(value, list):
        if math.prod([size for size in value if type(size) is int]) > _LARGEST_SAMPLE:
            refuse(source, f"its {key} {value[:8]} is larger than any sample.")
