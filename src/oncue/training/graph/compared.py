"""What is watched, by kinds: values are compared with those that were there, and can be put back."""

from __future__ import annotations

import ctypes
import io
from array import array
from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextvars import ContextVar
from operator import attrgetter, eq, is_, itemgetter
from types import CellType, MappingProxyType, MemberDescriptorType
from typing import Any

import numpy as np

MISSING = object()
"""Stands for a value that isn't there."""


class Table:
    """Values by names, of which none may become another object, come or go.

    Args:
        form: How one that has changed is called, with "{}" where its name is to stand.
        read: Returns the values by their names, now.
        write: Gets a name and the value that it is to have, MISSING for none.
        alike: Returns whether two values are the same; by default whether they are one object.

    Example:
        >>> space = {"a": 1}
        >>> table = Table("space.{}", space.copy, space.__setitem__)
        >>> space["a"] = 2
        >>> table.what(), table.put_back(), space
        ('space.a', None, {'a': 1})
    """

    def __init__(
        self,
        form: str,
        read: Callable[[], dict[Any, Any]],
        write: Callable[[Any, Any], object],
        alike: Callable[[Any, Any], bool] = is_,
    ) -> None:
        self._form, self._read, self._write, self._alike = form, read, write, alike
        self.before = read()
        """The values that were there."""

    def same(self) -> bool:
        """Return whether all values are those that were there."""
        now, before = self._read(), self.before
        return len(now) == len(before) and all(map(self._alike, now.values(), before.values()))

    def put_back(self) -> None:
        """Put the values back that were there."""
        for name in self._changed():
            self._write(name, self.before.get(name, MISSING))

    def what(self) -> str:
        """Return the name of what has changed."""
        changed = self._changed()
        return self._form.replace("{}", str(changed[0])) if changed else self._form.replace(".{}", "")

    def _changed(self) -> list[Any]:
        now, before = self._read(), self.before
        return [
            name for name in {**now, **before} if not self._alike(now.get(name, MISSING), before.get(name, MISSING))
        ]


class Items(Table):
    """The items of a container without names."""

    def __init__(self, label: str, container: list[Any] | set[Any] | deque[Any]) -> None:
        self._container = container
        super().__init__(label, lambda: dict(enumerate(container)), lambda place, item: None)

    def same(self) -> bool:
        """Return whether all items are those that were there."""
        return len(self._container) == len(self.before) and all(map(is_, self._container, self.before.values()))

    def put_back(self) -> None:
        """Put the items back that were there."""
        container = self._container
        container.clear()
        (container.update if isinstance(container, set) else container.extend)(self.before.values())


class Attributes(Table):
    """The values of a dict, compared in a tenth of the time.

    Args:
        form: As for `Table`.
        space: The dict.
        skipped: The names in it that don't count.
    """

    def __init__(self, form: str, space: dict[str, Any], skipped: frozenset[str] = frozenset()) -> None:
        self.space, self._skipped = space, skipped
        super().__init__(form, self._entries, self._put)
        # One name twice: of a single one the function would give the value itself. A dict that isn't plain may do something
        # when it is asked for a name that it doesn't have.
        names, quick = [*self.before, *list(self.before)[:1]], type(space) in (dict, MappingProxyType)
        self._get: Callable[[Any], Any] = itemgetter(*names) if names and quick else _values
        self._together = self._get(self.before)
        self.all = list(space.values())
        """What was in the dict, with what doesn't count."""

    def is_whole(self) -> bool:
        """Return whether even what doesn't count is as it was, so that the dict can be compared together with others."""
        space = self.space
        return type(space) is dict and len(space) == len(self.all) and all(map(is_, space.values(), self.all))

    def same(self) -> bool:
        """Return whether all values are those that were there."""
        try:
            return self._size() == len(self.before) and all(map(is_, self._get(self.space), self._together))
        except KeyError:
            return False

    def _size(self) -> int:
        return len(self.space) - sum(map(self.space.__contains__, self._skipped))

    def _entries(self) -> dict[str, Any]:
        return {name: value for name, value in self.space.items() if name not in self._skipped}

    def _put(self, name: str, value: Any) -> None:
        if value is MISSING:
            del self.space[name]
        else:
            self.space[name] = value


def _values(space: Mapping[str, Any]) -> list[Any]:
    return list(space.values())


class Globals(Attributes):
    """What a module has by some names."""

    def __init__(self, space: dict[str, Any], names: Collection[str]) -> None:
        self._names = sorted(names)
        super().__init__("the global `{}`", space)

    def _size(self) -> int:
        return len(self.before)

    def _entries(self) -> dict[str, Any]:
        return {name: self.space[name] for name in self._names if name in self.space}


class OfClass(Attributes):
    """What a class has, besides what Python gives it."""

    def __init__(self, cls: type) -> None:
        self._cls, space = cls, vars(cls)
        # It is written through the class.
        super().__init__(f"{cls.__name__}.{{}}", space, frozenset(filter(is_special, space)))  # type: ignore[arg-type]

    def _put(self, name: str, value: Any) -> None:
        if value is MISSING:
            delattr(self._cls, name)
        else:
            setattr(self._cls, name, value)


def slots_of(label: str, owner: Any, slots: dict[str, MemberDescriptorType]) -> Table:
    """Return the attributes of an object that has no dict of them."""

    def write(name: str, value: Any) -> None:
        if value is MISSING:
            slots[name].__delete__(owner)
        else:
            slots[name].__set__(owner, value)

    return Table(f"{label}.{{}}", lambda: {name: slot_value(owner, slot) for name, slot in slots.items()}, write)


def in_context(label: str, variable: ContextVar[Any]) -> Table:
    """Return the value of a context variable."""

    def write(name: str, value: Any) -> None:
        if value is not MISSING:
            variable.set(value)

    return Table("{}, a context variable", lambda: {label: variable.get(MISSING)}, write)


def cells_of(label: str, cells: dict[str, CellType]) -> Table:
    """Return the contents of a closure."""

    def write(name: str, value: Any) -> None:
        cells[name].cell_contents = value

    return Table(f"`{{}}` around {label}", lambda: {name: cell_content(cell) for name, cell in cells.items()}, write)


def content(label: str, read: Callable[[], Any], write: Callable[[Any], object]) -> Table:
    """Return what is in an object that stays the same one, compared by its value.

    Args:
        label: How the object is called where it has changed.
        read: Returns what is in it, now.
        write: Puts back what `read` returned first.
    """
    return Table(label, lambda: {"": read()}, lambda name, value: write(value), eq)


def memory_of(label: str, holder: Any) -> Table:
    """Return the content of an array, one of NumPy or of Python or of bytes, or of what `ctypes` makes.

    Example:
        >>> numbers = bytearray(b"12")
        >>> memory = memory_of("numbers", numbers)
        >>> numbers[0] = 0
        >>> memory.same(), memory.put_back(), numbers
        (False, None, bytearray(b'12'))
    """
    if isinstance(holder, np.ndarray):
        # Bytes of an array of objects are where those are, and hold none of them.
        copy = holder.copy()
        return content(label, holder.tobytes, lambda before: holder.__setitem__(..., copy))
    if isinstance(holder, bytearray):
        return content(label, lambda: bytes(holder), lambda before: holder.__setitem__(slice(None), before))
    if isinstance(holder, array):
        kind = holder.typecode
        return content(label, holder.tobytes, lambda before: holder.__setitem__(slice(None), array(kind, before)))
    return content(
        label, lambda: bytes(holder), lambda before: ctypes.memmove(ctypes.byref(holder), before, len(before))
    )


def text_of(label: str, file: io.StringIO | io.BytesIO) -> Table:
    """Return what a file in memory has, and where it is read and written."""

    def write(before: tuple[Any, int] | None) -> None:
        if before is not None and not file.closed:
            file.seek(0)
            file.truncate()
            file.write(before[0])
            file.seek(before[1])

    return content(label, lambda: None if file.closed else (file.getvalue(), file.tell()), write)


def cell_content(cell: CellType) -> Any:
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
