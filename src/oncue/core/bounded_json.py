"""JSON from files that anybody may have written: bounded in size, in what it makes in memory, and in depth."""

from __future__ import annotations

import json
from typing import Any

MEGABYTE = 1 << 20
MAX_DEPTH = 200
_CONTAINERS, _VALUES = 400_000, 1_000_000


def check_amount(content: Any, containers: int = _CONTAINERS, values: int = _VALUES) -> None:
    """Refuse JSON of more lists, objects and values than some: each takes dozens of times the memory of its few characters.

    Args:
        content: The text: bytes or a string.
        containers: How many lists and objects there may be.
        values: How many values there may be in them.

    Raises:
        ValueError: When there are more.

    Example:
        >>> check_amount(b'{"a": [1]}')
    """
    opening, closing, comma = ("{", "[", ",") if isinstance(content, str) else (b"{", b"[", b",")
    if content.count(opening) + content.count(closing) > containers:
        raise ValueError(f"its JSON has more than {containers} lists and objects")
    if content.count(comma) > values:
        raise ValueError(f"its JSON has more than {values} values")


def bounded_json(content: bytes, most_bytes: int = 16 * MEGABYTE) -> Any:
    """Parse JSON of bounded size and depth, without duplicate keys.

    Args:
        content: The text, in UTF-8.
        most_bytes: How long it may be.

    Returns:
        What it says.

    Raises:
        ValueError: When it is something else; the message is the end of a sentence.

    Example:
        >>> bounded_json(b'{"a": [1]}')
        {'a': [1]}
    """
    if len(content) > most_bytes:
        raise ValueError(f"its JSON has {len(content)} bytes, more than {most_bytes}")
    check_amount(content)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key comes twice")
        return found

    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its JSON is not valid ({type(error).__name__})") from error
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"its JSON is nested more than {MAX_DEPTH} deep")
        level = [
            part
            for item in level
            if isinstance(item, (dict, list))
            for part in (item.values() if isinstance(item, dict) else item)
            if isinstance(part, (dict, list))
        ]
    return value
