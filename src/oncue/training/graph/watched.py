"""Watched: the Python values that a graph was made from, and whether they are still the same objects."""

from __future__ import annotations

import io
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from operator import attrgetter, is_
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

from oncue.layers.layer import Layer
from oncue.random import SeedGenerator
from oncue.random_state import generator_state, is_generator, set_generator_state

_CONSTANT = (type(None), bool, int, float, complex, str, bytes, range, slice, np.generic, torch.dtype, torch.device)
# A generator of torch's is a part of the graph, and draws when it runs.
_NOT_FOLLOWED = (
    *_CONSTANT,
    torch.Generator,
    type,
    ModuleType,
    BuiltinFunctionType,
    torch.Tensor,
    torch.Size,
    SeedGenerator,
)

_DEPTH, _ITEMS, _FUNCTIONS = 4, 1000, 2000
"""How deep containers and objects are looked into, how many items one may have, and how many functions are read."""
_ARRAY = 2**16
"""How many bytes an array may have whose values are compared, and not only its identity."""
_MISSING = object()
_described = attrgetter("shape", "dtype", "device", "requires_grad")
_LIBRARIES = frozenset({"keras", "numpy", "oncue", "torch"})
"""Packages whose functions and objects aren't looked into: what they read of themselves is no setting of a user's."""


class Watched:
    """Remembers what a function of some objects could read, and names what has changed since.

    That is each attribute of the objects, the items of containers and plain objects in them, the values of small arrays, and
    the globals and closures that the methods of their classes, and functions that these call, refer to.

    Args:
        owners: The objects; modules without the modules inside.
        skipped: The attributes of modules other than oncue's own that don't count.

    Example:
        >>> module = torch.nn.Dropout(0.5)
        >>> watched = Watched([module])
        >>> watched.changed() is None
        True
        >>> module.p = 0.25
        >>> watched.changed()
        'Dropout.p'
    """

    def __init__(self, owners: Iterable[Any], skipped: frozenset[str] = frozenset()) -> None:
        self._skipped = skipped
        self._tables: list[_Table] = []
        # A module has ten of them: together they are asked at once whether one has got something.
        self._empty: list[Any] = []
        self._labels: list[str] = []
        self._generators: list[tuple[str, Any, Any]] = []
        self._arrays: list[tuple[str, np.ndarray[Any, Any], bytes]] = []
        self._seen: dict[int, Any] = {}
        self._codes: set[CodeType] = set()
        self._classes: set[type] = set()
        self.iterator: str | None = None
        """The name of an iterator among it, of which nobody can tell whether something was taken from it."""
        for owner in owners:
            self._look_into(owner, type(owner).__name__, 0)
        # Nearly all tables are dicts: their values are compared in one go, and only where one differs is it looked for.
        self._dicts = [table.container for table in self._tables if table.is_plain]
        self._values = list(chain.from_iterable(map(dict.values, self._dicts)))
        self._others = [table for table in self._tables if not table.is_plain]
        self._tensors = [value for table in self._tables for value in table.values if isinstance(value, torch.Tensor)]
        self._described = list(map(_described, self._tensors))

    def changed(self) -> str | None:
        """Return the name of something that is another object now, or has another value; None when nothing is."""
        if any(self._empty):
            return next(label for label, container in zip(self._labels, self._empty, strict=True) if container)
        values = chain.from_iterable(map(dict.values, self._dicts))
        same = sum(map(len, self._dicts)) == len(self._values) and all(map(is_, values, self._values))
        for table in self._others if same else self._tables:
            if table.now() != table.before:
                return table.what()
        for label, array, before in self._arrays:
            if array.tobytes() != before:
                return label
        for label, generator, before in self._generators:
            if generator_state(generator) != before:
                return label
        if list(map(_described, self._tensors)) != self._described:
            return "the shape or the place of a tensor"
        return None

    def put_back(self) -> None:
        """Put what has changed back to the objects and values that were there."""
        for container in self._empty:
            container.clear()
        for table in self._tables:
            if table.now() != table.before:
                table.put_back()
        for _, array, before in self._arrays:
            if array.tobytes() != before:
                array[...] = np.frombuffer(before, array.dtype).reshape(array.shape)
        for _, generator, before in self._generators:
            set_generator_state(generator, before)

    # Looking -----------------------------------------------------------------------------------------------------

    def _first(self, value: Any) -> bool:
        if id(value) in self._seen:
            return False
        # Held, so that no other object can get its identity.
        self._seen[id(value)] = value
        return True

    def _look_into(self, value: Any, label: str, depth: int) -> None:
        if isinstance(value, _NOT_FOLLOWED) or depth > _DEPTH:
            return
        if is_generator(value):
            if self._first(value):
                self._generators.append((label, value, generator_state(value)))
            return
        if depth and (isinstance(value, torch.nn.Module) or (_is_of_library(type(value)) and not _is_setting(value))):
            # Those that count are owners of their own.
            return
        if not self._first(value):
            return
        if isinstance(value, Iterator) and not isinstance(value, io.IOBase) and not hasattr(value, "__dict__"):
            self.iterator = label
        elif isinstance(value, np.ndarray):
            if value.nbytes <= _ARRAY and value.dtype != object:
                self._arrays.append((label, value, value.tobytes()))
        elif isinstance(value, FunctionType):
            self._read(value, label)
        elif isinstance(value, (partial, MethodType)):
            self._look_into(value.func if isinstance(value, partial) else value.__func__, label, depth + 1)
            held = [value.args, value.keywords] if isinstance(value, partial) else [value.__self__]
            self._look_into(held, label, depth + 1)
        elif isinstance(value, (dict, list, tuple, set, frozenset, deque)):
            self._look_at_items(value, label, depth)
        else:
            self._look_at_object(value, label, depth)

    def _look_at_items(self, value: Any, label: str, depth: int) -> None:
        if isinstance(value, (tuple, frozenset)):
            pass
        elif value:
            self._tables.append(_Table(label, value))
        else:
            self._empty.append(value)
            self._labels.append(label)
        if len(value) <= _ITEMS:
            for item in value.values() if isinstance(value, dict) else value:
                self._look_into(item, label, depth + 1)

    def _look_at_object(self, value: Any, label: str, depth: int) -> None:
        slots = [name for cls in type(value).__mro__ for name in _slots(cls)]
        if slots:
            self._tables.append(_Slots(label, value, slots))
            for name in slots:
                self._look_into(getattr(value, name, None), f"{label}.{name}", depth + 1)
        attributes = getattr(value, "__dict__", None)
        if not isinstance(attributes, dict):
            return
        skipped: frozenset[str] = frozenset()
        if isinstance(value, torch.nn.Module):
            skipped = value.of_the_run if isinstance(value, Layer) else self._skipped
        self._tables.append(_Table(label, attributes, skipped))
        self._look_at_class(type(value), label)
        for name, item in list(attributes.items()):
            if name not in skipped:
                self._look_into(item, f"{label}.{name}", depth + 1)

    def _look_at_class(self, kind: type, label: str) -> None:
        for cls in kind.__mro__[:-1]:
            if cls in self._classes or _is_of_library(cls):
                continue
            self._classes.add(cls)
            if _package(cls) in sys.stdlib_module_names:
                continue
            self._tables.append(_Class(cls.__name__, cls))
            for name, value in list(vars(cls).items()):
                function = getattr(value, "__func__", value)
                if isinstance(function, FunctionType):
                    self._read(function, label)
                elif not _is_special(name):
                    self._look_into(value, f"{cls.__name__}.{name}", 2)

    # Reading functions ---------------------------------------------------------------------------------------------

    def _read(self, function: FunctionType, label: str) -> None:
        """Watch what a function refers to by names of its module, and from functions around it."""
        if isinstance(wrapped := getattr(function, "__wrapped__", None), FunctionType):
            self._read(wrapped, label)
        if function.__code__ in self._codes or len(self._codes) >= _FUNCTIONS:
            return
        if str(function.__globals__.get("__name__")).partition(".")[0] in _LIBRARIES:
            return
        self._codes.add(function.__code__)
        where = f"{label}, {function.__name__}"
        if function.__closure__:
            cells = dict(zip(function.__code__.co_freevars, function.__closure__, strict=True))
            self._tables.append(_Cells(f"around {function.__qualname__}", cells))
            for name, cell in cells.items():
                self._look_into(_content(cell), f"`{name}` around {function.__qualname__}", 2)
                self._look_at_class_of(function.__globals__, _content(cell))
        for values in (function.__defaults__, function.__kwdefaults__):
            self._look_into(values, where, 2)
        names = _names(function.__code__)
        self._refer(function.__globals__, names, function.__qualname__)
        for name in names:
            value = function.__globals__.get(name)
            if isinstance(value, ModuleType) and not _is_of_library(value):
                self._refer(vars(value), names, name)
        self._look_into(vars(function), function.__qualname__, 2)

    def _refer(self, space: dict[str, Any], names: set[str], label: str) -> None:
        used = {name: space[name] for name in names if name in space}
        plain = [name for name, value in used.items() if not isinstance(value, (type, ModuleType, BuiltinFunctionType))]
        if plain:
            self._tables.append(_Named(label, space, sorted(plain)))
        for name in plain:
            self._look_into(used[name], f"{label}.{name}", 2)
        for value in used.values():
            self._look_at_class_of(space, value)

    def _look_at_class_of(self, space: dict[str, Any], value: Any) -> None:
        """Look at a class that is of the same package as the function that uses it."""
        if isinstance(value, type) and _package(value) == str(space.get("__name__")).partition(".")[0]:
            self._look_at_class(value, value.__name__)


class _Table:
    """The values of a dict or the items of another container, of which none may become another object."""

    def __init__(self, label: str, container: Any, skipped: frozenset[str] = frozenset()) -> None:
        self.label, self.container, self._skipped = label, container, skipped
        self.is_plain = type(self) is _Table and type(container) is dict and not skipped
        self._names = list(container) if isinstance(container, dict) else []
        self.values = self._values()
        self.before = list(map(id, self.values))

    def _values(self) -> list[Any]:
        container = self.container
        if not isinstance(container, dict):
            return list(container)
        if not self._skipped:
            return list(container.values())
        return [value for name, value in container.items() if name not in self._skipped]

    def now(self) -> list[int]:
        return list(map(id, self._values()))

    def put_back(self) -> None:
        """Put the values back that were there."""
        container = self.container
        if not isinstance(container, dict):
            container.clear()
            (container.update if isinstance(container, set) else container.extend)(self.values)
            return
        for name in [name for name in container if name not in self._skipped and name not in self._names]:
            del container[name]
        container.update(zip([name for name in self._names if name not in self._skipped], self.values, strict=True))

    def what(self) -> str:
        """Return the name of what has changed."""
        container = self.container
        if isinstance(container, dict):
            before = dict(zip([name for name in self._names if name not in self._skipped], self.before, strict=True))
            for name, value in container.items():
                if name not in self._skipped and before.get(name) != id(value):
                    return f"{self.label}.{name}"
        return self.label


class _Named(_Table):
    """Values of a module by some names."""

    def __init__(self, label: str, space: dict[str, Any], names: list[str]) -> None:
        self._wanted = names
        super().__init__(label, space)

    def _values(self) -> list[Any]:
        return [self.container.get(name) for name in self._wanted]

    def put_back(self) -> None:
        self.container.update(zip(self._wanted, self.values, strict=True))

    def what(self) -> str:
        for name, before, now in zip(self._wanted, self.before, self.now(), strict=True):
            if before != now:
                return f"the global `{name}`"
        return self.label


class _Class(_Table):
    """What a class has, besides what Python gives it."""

    def __init__(self, label: str, cls: type) -> None:
        self._cls = cls
        self._before = self._now()
        super().__init__(label, list(self._before.values()))

    def _now(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self._cls).items() if not _is_special(name)}

    def _values(self) -> list[Any]:
        return list(self._now().values())

    def put_back(self) -> None:
        for name in set(self._now()) - set(self._before):
            delattr(self._cls, name)
        for name, value in self._before.items():
            if vars(self._cls).get(name) is not value:
                setattr(self._cls, name, value)

    def what(self) -> str:
        now = self._now()
        changed = [name for name in {**self._before, **now} if now.get(name) is not self._before.get(name)]
        return f"{self.label}.{changed[0]}"


class _Slots(_Table):
    """The attributes of an object that has no dict of them."""

    def __init__(self, label: str, owner: Any, slots: list[str]) -> None:
        self._owner, self._slots = owner, slots
        super().__init__(label, slots)

    def _values(self) -> list[Any]:
        return [getattr(self._owner, name, _MISSING) for name in self._slots]

    def put_back(self) -> None:
        for name, value in zip(self._slots, self.values, strict=True):
            if value is not _MISSING:
                object.__setattr__(self._owner, name, value)
            elif hasattr(self._owner, name):
                object.__delattr__(self._owner, name)

    def what(self) -> str:
        changed = [
            name for name, before, now in zip(self._slots, self.before, self.now(), strict=True) if before != now
        ]
        return f"{self.label}.{changed[0]}"


class _Cells(_Table):
    """The contents of a closure."""

    def _values(self) -> list[Any]:
        return [_content(cell) for cell in self.container.values()]

    def put_back(self) -> None:
        for cell, value in zip(self.container.values(), self.values, strict=True):
            if _content(cell) is not value:
                cell.cell_contents = value

    def what(self) -> str:
        changed = [
            name for name, before, now in zip(self._names, self.before, self.now(), strict=True) if before != now
        ]
        return f"`{changed[0]}` {self.label}"


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        # Not filled yet: a function that refers to itself, say.
        return None


def _names(code: CodeType) -> set[str]:
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _names(constant)
    return found


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _slots(cls: type) -> list[str]:
    """Return the names of the slots that a user's class has."""
    if _package(cls) in sys.stdlib_module_names:
        return []
    names = vars(cls).get("__slots__", ())
    return [name for name in ([names] if isinstance(names, str) else list(names)) if not _is_special(name)]


def _package(thing: type | ModuleType) -> str:
    name = thing.__name__ if isinstance(thing, ModuleType) else thing.__module__ or ""
    return name.partition(".")[0]


def _is_of_library(thing: type | ModuleType) -> bool:
    return thing is not np.ndarray and _package(thing) in _LIBRARIES


def _is_setting(value: Any) -> bool:
    """Return whether an object has nothing but plain values, as a regularizer or a constraint has."""
    attributes = getattr(value, "__dict__", None)
    return isinstance(attributes, dict) and all(isinstance(item, _CONSTANT) for item in attributes.values())
