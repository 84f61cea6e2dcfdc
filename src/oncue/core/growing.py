"""Growing, GrowingText: a list and a text that are written as JSON again and again while they grow, all of it encoded once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, SupportsIndex, TypeVar

T = TypeVar("T")

_SIZE = 512


class Watched(list[T]):
    """A list that is told when anything but its end is changed.

    Example:
        >>> class Counts(Watched[int]):
        ...     changes = 0
        ...     def changed(self) -> None:
        ...         self.changes += 1
        >>> counts = Counts([1, 2])
        >>> counts.append(3)
        >>> counts[0] = 4
        >>> counts, counts.changes
        ([4, 2, 3], 1)
    """

    def changed(self) -> None:
        """Be told; called before the change."""

    def __setitem__(self, index: Any, value: Any) -> None:
        self.changed()
        super().__setitem__(index, value)

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        self.changed()
        super().__delitem__(index)

    def __imul__(self, times: SupportsIndex) -> Any:
        self.changed()
        return super().__imul__(times)

    def clear(self) -> None:
        """Remove all items."""
        self.changed()
        super().clear()

    def insert(self, index: SupportsIndex, item: T) -> None:
        """Insert an item before an index."""
        self.changed()
        super().insert(index, item)

    def pop(self, index: SupportsIndex = -1) -> T:
        """Remove and return an item."""
        self.changed()
        return super().pop(index)

    def remove(self, item: T) -> None:
        """Remove the first item that is equal to one."""
        self.changed()
        super().remove(item)

    def reverse(self) -> None:
        """Reverse the order."""
        self.changed()
        super().reverse()

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        """Sort."""
        self.changed()
        super().sort(key=key, reverse=reverse)


class _Chunk:
    """The JSON of some items that follow each other.

    Args:
        count: How many items.
        text: Their JSON, joined by commas; None when an item was removed since.
        parts: The JSON of each, while items are added or removed here.
    """

    __slots__ = ("count", "parts", "text")

    def __init__(self) -> None:
        self.count = 0
        self.text: bytes | None = b""
        self.parts: list[bytes] | None = []


class Growing(Watched[T]):
    """A list whose items are encoded once for all the times that it is written.

    In a run of many epochs, each state that is saved holds the History and the journal from the beginning. This is a plain
    list in all else. Changes at the end cost what was added, the removal of an item what is near it, other changes all.

    Args:
        items: The first items.
        fixed: Whether items that are containers, such as dicts, are never changed in place, and so can be kept as JSON.

    Example:
        >>> rows = Growing([0.5])
        >>> rows.append(0.25)
        >>> rows, b",".join(rows.texts(lambda row: repr(row).encode()))
        ([0.5, 0.25], b'0.5,0.25')
    """

    fixed = False
    _chunks: list[_Chunk] | None = None

    def __init__(self, items: Iterable[T] = (), *, fixed: bool = False) -> None:
        super().__init__(items)
        self.fixed = fixed

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again, (list(self), self.fixed)

    def changed(self) -> None:
        """Forget what was encoded."""
        self._chunks = None

    def drop(self, index: int) -> None:
        """Remove an item from the beginning or the middle, without forgetting the others."""
        list.__delitem__(self, index)
        for chunk in self._chunks or ():
            if index < chunk.count:
                chunk.count -= 1
                chunk.text = None
                if chunk.parts is not None:
                    del chunk.parts[index]
                return
            index -= chunk.count

    def texts(self, encode: Callable[[T], bytes | None]) -> list[bytes] | None:
        """Return the JSON of the items, in pieces that are to be joined by commas.

        Args:
            encode: Returns the JSON of an item; the same at each call. None if it has none.

        Returns:
            The pieces; None if an item has no JSON.
        """
        chunks = self._chunks = [chunk for chunk in self._chunks or () if chunk.count]
        start = 0
        for chunk in chunks:
            end = start + chunk.count
            if chunk.text is None:
                if chunk.parts is None:
                    chunk.parts = _parts(self[start:end], encode)
                if chunk.parts is None:
                    return None
                chunk.text = b",".join(chunk.parts)
            start = end
        while start < len(self):
            if not chunks or chunks[-1].count >= _SIZE:
                chunks.append(_Chunk())
            last = chunks[-1]
            added = _parts(self[start : start + _SIZE - last.count], encode)
            if added is None:
                return None
            start += len(added)
            last.text = b",".join([last.text, *added] if last.text else added)
            last.count += len(added)
            if last.parts is not None:
                # Those of a full one are only needed when an item of it is removed.
                last.parts = last.parts + added if last.count < _SIZE else None
        return [chunk.text for chunk in chunks if chunk.text]


def _parts(items: list[T], encode: Callable[[T], bytes | None]) -> list[bytes] | None:
    found: list[bytes] = []
    for item in items:
        part = encode(item)
        if part is None:
            return None
        found.append(part)
    return found


def _made_again(items: list[Any], fixed: bool) -> Growing[Any]:
    return Growing(items, fixed=fixed)


_PIECE = 1 << 16


class GrowingText:
    r"""A text that is encoded once for all the times that it is written.

    Args:
        text: Its beginning.

    Example:
        >>> text = GrowingText("a\n")
        >>> text.append("b")
        >>> str(text), b"".join(text.texts())
        ('a\nb', b'a\\nb')
    """

    def __init__(self, text: str = "") -> None:
        self._parts: list[str] = []
        self._texts: list[bytes] = []
        self.append(text)

    def append(self, text: str) -> None:
        """Add to its end."""
        encoded = json.dumps(text).encode("ascii")[1:-1]
        if self._texts and len(self._texts[-1]) < _PIECE:
            self._parts[-1] += text
            self._texts[-1] += encoded
        else:
            self._parts.append(text)
            self._texts.append(encoded)

    def texts(self) -> list[bytes]:
        """Return its JSON without quotation marks, in pieces."""
        return list(self._texts)

    def __str__(self) -> str:
        return "".join(self._parts)
