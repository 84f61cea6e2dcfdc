"""Watched: the Python values that a graph was made from, and whether they are still the same objects."""

from __future__ import annotations

import ctypes
import gc
import io
import random
import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, MappingView
from contextvars import ContextVar
from functools import cached_property, partial
from itertools import chain
from operator import attrgetter, is_
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any
from weakref import ref

import numpy as np
import torch

from oncue.callbacks import Callback
from oncue.layers.layer import Layer
from oncue.optimizers.optimizer import Optimizer
from oncue.random import SeedGenerator
from oncue.random_state import generator_state, is_generator, set_generator_state
from oncue.training.graph.code_names import modules_imported, names_in, names_read
from oncue.training.graph.compared import (
    MISSING,
    Attributes,
    Globals,
    Items,
    OfClass,
    Table,
    cell_content,
    cells_of,
    content,
    described,
    in_context,
    is_special,
    memory_of,
    slot_value,
    slots_of,
    text_of,
)

_CONSTANT = (type(None), bool, int, float, complex, str, bytes, range, slice, np.generic, torch.dtype, torch.device)
# A generator of torch's is a part of the graph, and draws when it runs; one of the system has no state.
_NOT_FOLLOWED = (*_CONSTANT, torch.Generator, random.SystemRandom, ModuleType, torch.Tensor, torch.Size, SeedGenerator)
_HOLDERS = (partial, MethodType, BuiltinFunctionType, MappingProxyType, MappingView, memoryview, ref)
"""Classes of objects that stand for others, and have nothing of their own that changes."""

_OBJECTS, _FUNCTIONS = 50_000, 2000
"""How many containers and objects are looked into, and how many functions are read, those first that are near."""
_ARRAY, _ARRAYS = 2**16, 2**24
"""How many bytes an array may have whose content is always compared, and how many larger ones may have together."""
# The last one is the base of all that `ctypes` makes.
_MEMORY = (np.ndarray, bytearray, array, ctypes.c_int.__mro__[-2])
_body = attrgetter("__code__", "__defaults__", "__kwdefaults__")
"""Gets what a notebook puts into a function whose file was edited."""
_LIBRARIES = frozenset({"keras", "numpy", "oncue", "torch"})
"""Packages whose functions and objects aren't looked into: what they read of themselves is no setting of a user's."""


class Watched:
    """Remembers what a function of some objects could read, and names what has changed since.

    That is each attribute of the objects, the items of containers and plain objects in them, the content of arrays, and the
    globals and closures that the methods of their classes, and functions that these call, refer to. A module that is met in
    any of these is looked at as the objects themselves are, with the modules inside.

    Args:
        owners: The objects.
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
        self.modules: list[torch.nn.Module] = []
        """All modules among it, each once."""
        self.unseen: str | None = None
        """What the function may do that nobody could see, as a reason to refuse it; None when there is nothing."""
        self._skipped = skipped
        self._tables: list[Table] = []
        # A module has ten of them: together they are asked at once whether one has got something.
        self._empty: list[Any] = []
        self._labels: list[str] = []
        self._bytes = 0
        # Held, so that no other object can get the identity of one.
        self._seen: dict[int, Any] = {}
        self._codes: set[CodeType] = set()
        self._functions: list[FunctionType] = []
        # Those that make a module or a loss aren't called by a step.
        self._making: set[CodeType] = set()
        self._classes: set[type] = set()
        self._spaces: dict[int, tuple[dict[str, Any], set[str]]] = {}
        # What nobody could see, if a function reads it: by what name, and what is to be said then.
        self._hidden: list[tuple[str | None, str]] = []
        # What is left to look at.
        self._left: deque[Callable[[], None]] = deque()
        # The same, once it is known which names functions read.
        self._last: deque[Callable[[], None]] = deque()
        self._names: set[str] = set()
        for owner in owners:
            self._own(owner)
        while self._left or self._last:
            (self._left or self._last).popleft()()
        self._tables += [Globals(space, names) for space, names in self._spaces.values()]
        self._sort()
        held = chain.from_iterable(table.before.values() for table in self._tables)
        self._tensors = [value for value in held if isinstance(value, torch.Tensor)]
        self._described = list(map(described, self._tensors))
        self._bodies = self._bodies_now()
        if self._hidden:
            read = set().union(*map(names_read, self._codes - self._making))
            self.unseen = next((reason for name, reason in self._hidden if name is None or name in read), None)

    def changed(self) -> str | None:
        """Return the name of something that is another object now, or has another value; None when nothing is."""
        if any(self._empty):
            return next(label for label, container in zip(self._labels, self._empty, strict=True) if container)
        values = chain.from_iterable(map(dict.values, self._dicts))
        same = sum(map(len, self._dicts)) == len(self._values) and all(map(is_, values, self._values))
        for table in self._others if same else self._tables:
            if not table.same():
                return table.what()
        if not same:
            self._sort()
        if list(map(described, self._tensors)) != self._described:
            return "the shape or the place of a tensor"
        if not all(map(is_, self._bodies_now(), self._bodies)):
            return "the code or a default of a function"
        return None

    def put_back(self) -> None:
        """Put what has changed back to the objects and values that were there."""
        for container in self._empty:
            container.clear()
        for table in self._tables:
            if not table.same():
                table.put_back()

    def _bodies_now(self) -> list[Any]:
        return list(chain.from_iterable(map(_body, self._functions)))

    def _sort(self) -> None:
        """Put the tables together that are dicts, as nearly all are: their values are compared in one go."""
        whole = [table for table in self._tables if isinstance(table, Attributes) and table.is_whole()]
        self._dicts = [table.space for table in whole]
        self._values = list(chain.from_iterable(table.all for table in whole))
        together = set(whole)
        self._others = [table for table in self._tables if table not in together]

    # Looking -----------------------------------------------------------------------------------------------------

    def _own(self, owner: Any) -> None:
        """Look at an object itself, of whatever class it is."""
        if id(owner) in self._seen:
            return
        self._seen[id(owner)] = owner
        if isinstance(owner, torch.nn.Module):
            self.modules.append(owner)
        self._left.append(partial(self._look_at_object, owner, type(owner).__name__))
        self._look_at_class(type(owner), made=True)

    def _look_into(self, value: Any, label: str, name: str | None) -> None:
        """Look at a value that was found.

        Args:
            value: The value.
            label: How it is called.
            name: The name by which a function would read it; None where there is none.
        """
        if isinstance(value, _NOT_FOLLOWED):
            return
        if isinstance(value, type):
            self._look_at_class(value)
        elif isinstance(value, torch.nn.Module):
            self._own(value)
        elif _is_iterator(value):
            self._hidden.append((name, f"it may take items from {label}, an iterator, which a graph would do once"))
        elif isinstance(value, _MEMORY) and self._is_too_large(value):
            size = _bytes_of(value) / 2**20
            self._hidden.append(
                (
                    name,
                    f"it may read {label}, an array of {size:.0f} MiB, which is too large to see whether its values "
                    "change (keep it as a buffer: `self.register_buffer(name, torch.as_tensor(array))`)",
                )
            )
        elif id(value) not in self._seen and len(self._seen) < _OBJECTS:
            self._seen[id(value)] = value
            self._left.append(partial(self._look_at, value, label, name))

    def _look_at(self, value: Any, label: str, name: str | None) -> None:
        if is_generator(value):
            self._tables.append(content(label, partial(generator_state, value), partial(set_generator_state, value)))
        elif isinstance(value, _MEMORY):
            self._bytes += _bytes_of(value)
            self._tables.append(memory_of(label, value))
            if isinstance(value, np.ndarray) and value.dtype == object:
                self._look_into_all(value.flat, label, name)
        elif isinstance(value, (io.StringIO, io.BytesIO)):
            self._tables.append(text_of(label, value))
        elif _is_of_library(type(value)) and not (_is_setting(value) or isinstance(value, Callback)):
            pass
        elif isinstance(value, ContextVar):
            self._tables.append(in_context(label, value))
            self._look_into(value.get(None), label, name)
        elif isinstance(value, FunctionType):
            self._read(value, label)
        elif isinstance(value, _HOLDERS):
            self._look_into_all(_held_by(value), label, None)
        elif isinstance(value, (dict, list, tuple, set, frozenset, deque)):
            self._look_at_items(value, label, name)
        else:
            self._look_at_object(value, label)

    def _look_into_all(self, items: Iterable[Any], label: str, name: str | None) -> None:
        for item in items:
            self._look_into(item, label, name)

    def _is_too_large(self, value: Any) -> bool:
        size = _bytes_of(value)
        return id(value) not in self._seen and size > _ARRAY and self._bytes + size > _ARRAYS

    def _look_at_items(self, value: Any, label: str, name: str | None) -> None:
        if isinstance(value, (tuple, frozenset)):
            pass
        elif not value:
            self._empty.append(value)
            self._labels.append(label)
        elif isinstance(value, dict):
            self._tables.append(Attributes(f"{label}.{{}}", value))
        else:
            self._tables.append(Items(label, value))
        self._look_into_all(value.values() if isinstance(value, dict) else value, label, name)

    def _look_at_object(self, value: Any, label: str) -> None:
        slots = {name: slot for cls in type(value).__mro__ for name, slot in _slots(cls).items()}
        if slots:
            self._tables.append(slots_of(label, value, slots))
            for name, slot in slots.items():
                item = slot_value(value, slot)
                if item is not MISSING:
                    self._look_into(item, f"{label}.{name}", name)
        self._look_at_class(type(value))
        attributes = _attributes(value)
        if attributes is None:
            return
        skipped: frozenset[str] = frozenset()
        if isinstance(value, torch.nn.Module):
            skipped = value.of_the_run if isinstance(value, Layer) else self._skipped
        elif isinstance(value, Optimizer):
            skipped = value.of_the_run
        if skipped:
            self._last.append(partial(self._look_at_skipped, label, attributes, skipped))
        else:
            self._tables.append(Attributes(f"{label}.{{}}", attributes))
        for name, item in list(attributes.items()):
            if name not in skipped:
                self._look_into(item, f"{label}.{name}", name)

    def _look_at_skipped(self, label: str, attributes: dict[str, Any], skipped: frozenset[str]) -> None:
        """Look at what a run changes only where a function reads an attribute of the name."""
        # Of the optimizer a step can't read what changes.
        read = (skipped & self._names) - {"optimizer"}
        self._tables.append(Attributes(f"{label}.{{}}", attributes, skipped - read))
        for name in sorted(read & attributes.keys()):
            self._look_into(attributes[name], f"{label}.{name}", name)

    def _look_at_class(self, kind: type, made: bool = False) -> None:
        """Look at the attributes and methods of a class; with `made`, the step doesn't make objects of it."""
        metaclass: type = type(kind)
        for cls in (*kind.__mro__[:-1], *metaclass.__mro__[:-2]):
            if cls in self._classes or _is_of_library(cls):
                continue
            self._classes.add(cls)
            if _package(cls) not in sys.stdlib_module_names:
                self._left.append(partial(self._look_at_entries, cls, made))

    def _look_at_entries(self, cls: type, made: bool) -> None:
        self._tables.append(OfClass(cls))
        for name, value in list(vars(cls).items()):
            functions = _functions_of(value)
            for function in functions:
                if made and function.__name__ == "__init__":
                    self._making.add(function.__code__)
                self._read(function, cls.__name__)
            if not functions and not is_special(name):
                self._look_into(value, f"{cls.__name__}.{name}", name)

    # Reading functions ---------------------------------------------------------------------------------------------

    def _read(self, function: FunctionType, label: str) -> None:
        """Watch what a function refers to by names of its module, and from functions around it."""
        wrapped = vars(function).get("__wrapped__")
        if isinstance(wrapped, FunctionType):
            self._read(wrapped, label)
        if function.__code__ in self._codes and not function.__closure__:
            return
        if len(self._codes) >= _FUNCTIONS:
            return
        if str(function.__globals__.get("__name__")).partition(".")[0] in _LIBRARIES:
            return
        self._codes.add(function.__code__)
        self._functions.append(function)
        names, spaces = names_in(function.__code__), set[int]()
        self._names |= names
        if function.__closure__:
            cells = dict(zip(function.__code__.co_freevars, function.__closure__, strict=True))
            self._tables.append(cells_of(function.__qualname__, cells))
            for name, cell in cells.items():
                held = cell_content(cell)
                self._look_into(held, f"`{name}` around {function.__qualname__}", name)
                self._refer_to_module(held, names, spaces)
        for values in (function.__defaults__, function.__kwdefaults__):
            self._look_into(values, f"{label}, {function.__name__}", None)
        self._refer(function.__globals__, names, function.__qualname__, spaces)
        for module in modules_imported(function):
            self._refer_to_module(module, names, spaces)
        self._look_into(vars(function), function.__qualname__, None)

    def _refer(self, space: dict[str, Any], names: set[str], label: str, spaces: set[int]) -> None:
        """Watch what a module has by some names, and the modules that it has by them; each once."""
        used = {name: space[name] for name in names if name in space}
        if id(space) in spaces or not used:
            return
        spaces.add(id(space))
        self._spaces.setdefault(id(space), (space, set()))[1].update(used)
        for name, value in used.items():
            self._look_into(value, f"{label}.{name}", name)
            self._refer_to_module(value, names, spaces)

    def _refer_to_module(self, value: Any, names: set[str], spaces: set[int]) -> None:
        if isinstance(value, ModuleType) and not _is_of_library(value):
            self._refer(vars(value), names, value.__name__, spaces)


def _held_by(value: Any) -> list[Any]:
    if isinstance(value, ref):
        return [value()]
    return [value.obj] if isinstance(value, memoryview) else gc.get_referents(value)


def _bytes_of(value: Any) -> int:
    return value.nbytes if isinstance(value, np.ndarray) else memoryview(value).nbytes


def _is_iterator(value: Any) -> bool:
    """Return whether a value is an iterator that isn't an object with attributes, which would show what it took."""
    if not isinstance(value, Iterator) or isinstance(value, io.IOBase):
        return False
    return _is_of_library(type(value)) or _attributes(value) is None


def _attributes(value: Any) -> dict[str, Any] | None:
    """Return the dict of an object's attributes, past functions of its own that find them; None where it has none."""
    # What is local to a thread has one for each, and finds it itself.
    get: Any = type(value).__getattribute__
    try:
        found = (object.__getattribute__ if isinstance(get, FunctionType) else get)(value, "__dict__")
    except AttributeError:
        return None
    return found if isinstance(found, dict) else None


def _slots(cls: type) -> dict[str, MemberDescriptorType]:
    """Return the slots that a user's class has, by their names."""
    if _package(cls) in sys.stdlib_module_names:
        return {}
    return {name: slot for name, slot in vars(cls).items() if isinstance(slot, MemberDescriptorType)}


def _functions_of(value: Any) -> list[FunctionType]:
    """Return the functions that are called where an attribute of a class is used."""
    found: list[Any] = [value]
    if isinstance(value, property):
        found = [value.fget, value.fset, value.fdel]
    elif isinstance(value, cached_property):
        found = [value.func]
    elif isinstance(value, (classmethod, staticmethod)):
        found = [value.__func__]
    return [function for function in found if isinstance(function, FunctionType)]


def _package(thing: type | ModuleType) -> str:
    name = thing.__name__ if isinstance(thing, ModuleType) else thing.__module__ or ""
    return name.partition(".")[0]


def _is_of_library(thing: type | ModuleType) -> bool:
    return _package(thing) in _LIBRARIES


def _is_setting(value: Any) -> bool:
    """Return whether an object has nothing but plain values, as a regularizer or a constraint has."""
    attributes = _attributes(value)
    return attributes is not None and all(isinstance(item, _CONSTANT) for item in attributes.values())
