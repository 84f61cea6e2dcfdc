"""What is watched, each thing of one kind: the values that it has are compared with those it had, and can be put back."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from itertools import chain
from operator import attrgetter, is_, itemgetter
from types import CellType, MemberDescriptorType
from typing import Any

import numpy as np

MISSING = object()
"""Stands for a value that isn't there."""


class Table:
    """The values of a dict or the items of another container, of which none may become another object.

    Args:
        label: How it is called where one has changed.
        container: The container.
        skipped: The names in it that don't count.
    """

    def __init__(self, label: str, container: Any, skipped: frozenset[str] = frozenset()) -> None:
        self.label, self.container, self._skipped = label, container, skipped
        self.is_plain = type(self) is Table and type(container) is dict and not skipped
        """Whether it is nothing but a dict, which can be compared together with others."""
        self._names = list(container) if isinstance(container, dict) else []
        self.values = self._values()
        """The values that were there."""
        self.before = list(map(id, self.values))

    def _values(self) -> list[Any]:
        container = self.container
        if not isinstance(container, dict):
            return list(container)
        if not self._skipped:
            return list(container.values())
        return [value for name, value in container.items() if name not in self._skipped]

    def same(self) -> bool:
        """Return whether all values are those that were there."""
        return self._same()

    def put_back(self) -> None:
        """Put the values back that were there."""
        self._put_back()

    def what(self) -> str:
        """Return the name of what has changed."""
        return self._what()

    def _same(self) -> bool:
        return self._now() == self.before

    def _put_back(self) -> None:
        container = self.container
        if not isinstance(container, dict):
            container.clear()
            (container.update if isinstance(container, set) else container.extend)(self.values)
            return
        for name in [name for name in container if name not in self._skipped and name not in self._names]:
            del container[name]
        container.update(zip([name for name in self._names if name not in self._skipped], self.values, strict=True))

    def _what(self) -> str:
        container = self.container
        if isinstance(container, dict):
            before = dict(zip([name for name in self._names if name not in self._skipped], self.before, strict=True))
            for name, value in container.items():
                if name not in self._skipped and before.get(name) != id(value):
                    return f"{self.label}.{name}"
        return self.label

    def _now(self) -> list[int]:
        return list(map(id, self._values()))

    def _changed(self, names: Iterable[str]) -> str:
        return next(name for name, before, now in zip(names, self.before, self._now(), strict=True) if before != now)


class Named(Table):
    """Values of a module by some names."""

    def __init__(self, label: str, space: dict[str, Any], names: list[str]) -> None:
        self._wanted = names
        self._get = _getter(names)
        super().__init__(label, space)
        self._together = self._get(space)

    def _values(self) -> list[Any]:
        return [self.container.get(name, MISSING) for name in self._wanted]

    def _same(self) -> bool:
        try:
            return all(map(is_, self._get(self.container), self._together))
        except KeyError:
            return False

    def _put_back(self) -> None:
        self.container.update(zip(self._wanted, self.values, strict=True))

    def _what(self) -> str:
        return f"the global `{self._changed(self._wanted)}`"


class OfClass(Table):
    """What a class has, besides what Python gives it."""

    def __init__(self, label: str, cls: type) -> None:
        self._cls = cls
        self._before = self._entries_now()
        self._get = _getter(self._before) if self._before else None
        self._together = () if self._get is None else self._get(vars(cls))
        self._entries = len(vars(cls))
        super().__init__(label, list(self._before.values()))

    def _entries_now(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self._cls).items() if not is_special(name)}

    def _values(self) -> list[Any]:
        return list(self._entries_now().values())

    def _same(self) -> bool:
        entries = vars(self._cls)
        if len(entries) == self._entries and self._get is not None:
            try:
                return all(map(is_, self._get(entries), self._together))
            except KeyError:
                return False
        return super()._same()

    def _put_back(self) -> None:
        for name in set(self._entries_now()) - set(self._before):
            delattr(self._cls, name)
        for name, value in self._before.items():
            if vars(self._cls).get(name) is not value:
                setattr(self._cls, name, value)

    def _what(self) -> str:
        now = self._entries_now()
        changed = [name for name in {**self._before, **now} if now.get(name) is not self._before.get(name)]
        return f"{self.label}.{changed[0]}" if changed else self.label


class Slots(Table):
    """The attributes of an object that has no dict of them."""

    def __init__(self, label: str, owner: Any, slots: dict[str, MemberDescriptorType]) -> None:
        self._owner, self._slots = owner, slots
        super().__init__(label, slots)

    def _values(self) -> list[Any]:
        return [slot_value(self._owner, slot) for slot in self._slots.values()]

    def _put_back(self) -> None:
        for slot, value in zip(self._slots.values(), self.values, strict=True):
            if value is not MISSING:
                slot.__set__(self._owner, value)
            elif slot_value(self._owner, slot) is not MISSING:
                slot.__delete__(self._owner)

    def _what(self) -> str:
        return f"{self.label}.{self._changed(self._slots)}"


class Cells(Table):
    """The contents of a closure."""

    def _values(self) -> list[Any]:
        return [content(cell) for cell in self.container.values()]

    def _put_back(self) -> None:
        for cell, value in zip(self.container.values(), self.values, strict=True):
            if content(cell) is not value:
                cell.cell_contents = value

    def _what(self) -> str:
        return f"`{self._changed(self._names)}` {self.label}"


class InContext(Table):
    """The value of a context variable."""

    def __init__(self, label: str, variable: ContextVar[Any]) -> None:
        super().__init__(label, variable)

    def _values(self) -> list[Any]:
        return [self.container.get(MISSING)]

    def _put_back(self) -> None:
        if self.values[0] is not MISSING:
            self.container.set(self.values[0])

    def _what(self) -> str:
        return f"{self.label}, a context variable"


class Memory:
    """The content of an array: one of NumPy or of Python, or of bytes.

    Args:
        label: How it is called where it has changed.
        holder: The array.

    Example:
        >>> numbers = bytearray(b"12")
        >>> memory = Memory("numbers", numbers)
        >>> numbers[0] = 0
        >>> memory.same(), memory.put_back(), numbers
        (False, None, bytearray(b'12'))
    """

    def __init__(self, label: str, holder: np.ndarray[Any, Any] | bytearray | array[Any]) -> None:
        self.label, self._holder = label, holder
        self._before = self._now()
        # Bytes of an array of objects are where those are, and hold none of them.
        self._copy = holder.copy() if isinstance(holder, np.ndarray) else None

    def _now(self) -> bytes:
        holder = self._holder
        return bytes(holder) if isinstance(holder, bytearray) else holder.tobytes()

    def same(self) -> bool:
        """Return whether the content is what it was."""
        return self._now() == self._before

    def put_back(self) -> None:
        """Put the content back."""
        holder = self._holder
        if isinstance(holder, np.ndarray):
            holder[...] = self._copy
        elif isinstance(holder, bytearray):
            holder[:] = self._before
        else:
            del holder[:]
            holder.frombytes(self._before)


def _getter(names: Iterable[str]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """Return a function that gets the values of names; of one name, too, a tuple."""
    names = list(names)
    return itemgetter(*chain(names, names[:1]))


def content(cell: CellType) -> Any:
    """Return what a cell of a closure holds; None when that isn't there yet: of a function that refers to itself, say."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def slot_value(owner: Any, slot: MemberDescriptorType) -> Any:
    """Return the value of a slot, past the owner's own `__getattr__`."""
    try:
        return slot.__get__(owner)
    except AttributeError:
        return MISSING


def is_special(name: str) -> bool:
    """Return whether a name is one that Python gives."""
    return name.startswith("__") and name.endswith("__")


described = attrgetter("shape", "dtype", "device", "requires_grad")
"""Gets what a graph depends on of a tensor."""
