"""Trial: a run of layers of which only the outputs' shapes are wanted, so that nothing of it stays."""

from __future__ import annotations

import mmap
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import Enum, auto
from functools import lru_cache, partial
from operator import is_not
from typing import Any, Self

import numpy as np
import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from oncue.core.builtin import is_builtin
from oncue.core.warn import warn
from oncue.random import SeedGenerator
from oncue.random_state import GENERATORS, generator_state, rewinder, set_generator_state
from oncue.torch_private import (
    children_of,
    parts_of,
    storage_of,
    subclasses_unasked,
    tensor_tables,
    version_of,
    watched_writes,
)
from oncue.variable import Variable

PutBack = Callable[[], object]

_CONSTANT = (type(None), bool, int, float, complex, str, bytes, np.generic, torch.Size, torch.dtype, torch.device)
_OF_TORCH = frozenset(vars(torch.nn.Module())) - {"training"}
"""Where torch keeps the parts of a module, which building adds to."""

_PART = (torch.nn.Module, torch.nn.Parameter, Variable)
_CONTAINER = (list, tuple, set, frozenset, deque, dict)

_ALWAYS, _BYTES, _ALL_BYTES = 2**12, 2**20, 2**24
"""How large a tensor or array may be that is always copied at once; the most that one, and all others, may take of it."""

_ITEMS, _LOOKS = 10_000_000, 100_000
"""How many items may be noted in all containers, and of how many it is looked at what they hold."""


class Trial:
    """Puts back, when its block ends, what runs inside have changed.

    That is the values of weights and buffers, plain attributes of modules (numbers, strings, tensors, arrays, and containers
    of them), and all random generators.

    What building makes stays: a layer that is built inside is kept as its `build` left it, and so are the random numbers
    that its weights took. Where a call makes layers or weights itself, the attributes of that module, and of those around
    it, are left alone.

    The memory of a tensor is copied when an operation is about to write it, so that what isn't written isn't copied: a frozen
    backbone, say. NumPy and kernels that aren't torch's write without an operation: therefore tensors that aren't trained
    and arrays are copied at once, up to 1 MiB each and 16 MiB in all. Larger ones that are written so, or in another
    thread, can't be put back: a warning names them. In none of these ways it is seen what NumPy writes into the memory of a
    larger tensor. Arrays in a mapped file, of that size, are left alone, as all files are; and so are containers, once there
    are ten million items in all, and what is in them, once there are 100 000.

    Args:
        *owners: Modules, with all modules inside, and other objects whose plain attributes are put back.

    Example:
        >>> layer = torch.nn.BatchNorm1d(2)
        >>> with Trial(layer):
        ...     _ = layer(torch.ones(3, 2))
        >>> int(layer.num_batches_tracked), layer.running_mean.tolist()
        (0, [0.0, 0.0])
    """

    def __init__(self, *owners: Any) -> None:
        self._owners = owners
        self._modules: dict[int, _Module] = {}
        self._draws: _Draws | None = None
        self._seen = _Seen()
        self._block = ExitStack()

    def __enter__(self) -> Self:
        found: dict[torch.nn.Module, None] = {}
        for owner in self._owners:
            if isinstance(owner, torch.nn.Module) and owner not in found:
                found.update(dict.fromkeys(owner.modules()))
        modules = list(found)
        others = [owner for owner in self._owners if not isinstance(owner, torch.nn.Module)]
        with subclasses_unasked():
            for module in modules:
                self._keep(module)
            self._others = [_Attributes(owner, self._seen) for owner in others]
        if _running.draws is None or _running.draws.building:
            # Lazy modules of torch are built by their first run, and draw their weights then.
            counts = not any(map(_is_lazy, modules))
            self._before, self._draws = _running.draws, _Draws(rewinder() if counts else None)
            _running.draws = self._draws
        _running.trials.append(self)
        if not self._block.enter_context(watched_writes(self._seen.save)):
            self._seen.copy_at_once()
        return self

    def __exit__(self, *error: object) -> None:
        self._block.close()
        _running.trials.remove(self)
        found: dict[int, bool] = {}
        made = [self._made(kept.module, found) for kept in self._modules.values()]
        with subclasses_unasked():
            for kept in self._modules.values():
                kept.put_back(attributes=not found[id(kept.module)])
            for other in self._others:
                other.put_back()
        if self._draws is not None:
            _running.draws = self._before
            if not any(made):
                self._draws.rewind()
        changed = list(dict.fromkeys(self._seen.changed))
        if changed and error[0] is None:
            names = ", ".join(f"`{name}`" for name in changed[:3]) + (" and others" if len(changed) > 3 else "")
            warn(
                f"{names} {'was' if len(changed) == 1 else 'were'} changed while the model was only run to find shapes, and "
                "can't be put back, because NumPy, another thread or a kernel that isn't torch's wrote it: training begins "
                "with it as it is now. Write it by operations of torch, or only where `self.training` is true."
            )

    def keep_built(self, module: torch.nn.Module) -> None:
        """Put a module, and all modules inside, back to how its `build` has left them."""
        with subclasses_unasked():
            for part in module.modules():
                kept = self._modules.get(id(part))
                if kept is None:
                    self._keep(part)
                else:
                    kept.note_anew()

    def _keep(self, module: torch.nn.Module) -> None:
        """Note a module; one that isn't built yet only when it is."""
        if id(module) not in self._modules and vars(module).get("built", True) and not _is_lazy(module):
            self._modules[id(module)] = _Module(module, self._seen)

    def _made(self, module: torch.nn.Module, found: dict[int, bool]) -> bool:
        """Return whether parts were made in a module or below it, which the attributes of both remember."""
        if id(module) not in found:
            found[id(module)] = False
            kept = self._modules.get(id(module))
            inside = [self._made(child, found) for child in children_of(module).values() if child is not None]
            found[id(module)] = any(inside) or (kept is not None and kept.made())
        return found[id(module)]


class _Draws:
    """Where the random generators would be if only building had drawn from them."""

    def __init__(self, rewind: PutBack | None) -> None:
        self._rewind = rewind
        self.building = 0

    def rewind(self) -> None:
        if self._rewind is not None:
            self._rewind()

    def took(self) -> None:
        if self._rewind is not None:
            self._rewind = rewinder()


class _Running(threading.local):
    """The trials of this thread."""

    def __init__(self) -> None:
        self.trials: list[Trial] = []
        self.draws: _Draws | None = None


_running = _Running()


@contextmanager
def building(module: torch.nn.Module) -> Iterator[None]:
    """Enclose what makes the weights of a module, which stay when a trial ends.

    Args:
        module: The module.
    """
    draws = _running.draws
    if draws is None:
        yield
        return
    if not draws.building:
        draws.rewind()
    draws.building += 1
    try:
        yield
    finally:
        draws.building -= 1
    if not draws.building:
        # A `build` of a subclass goes on where that of its parent ends.
        draws.took()
        for trial in _running.trials:
            trial.keep_built(module)


def _is_lazy(module: torch.nn.Module) -> bool:
    own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return any(isinstance(tensor, (UninitializedParameter, UninitializedBuffer)) for tensor in own)


class _Role(Enum):
    """What becomes of the value of an attribute."""

    LEFT = auto()
    PART = auto()
    TENSOR = auto()
    ARRAY = auto()
    SEED = auto()
    GENERATOR = auto()
    CONTAINER = auto()


_ROLES = (
    (_CONSTANT, _Role.LEFT),
    (_PART, _Role.PART),
    ((torch.Tensor,), _Role.TENSOR),
    ((np.ndarray,), _Role.ARRAY),
    ((SeedGenerator,), _Role.SEED),
    (GENERATORS, _Role.GENERATOR),
    (_CONTAINER, _Role.CONTAINER),
)


def _find_role(kind: type) -> _Role:
    return next((role for kinds, role in _ROLES if issubclass(kind, kinds)), _Role.LEFT)


_role_of: Callable[[type], _Role] = lru_cache(maxsize=1000)(_find_role)


class _Seen:
    """What a trial has seen: the memory of tensors, arrays and containers, and how much it may still copy at once."""

    def __init__(self) -> None:
        self.parts: dict[int, Any] = {}
        self.changed: list[str] = []
        """The names of what was changed and couldn't be put back."""
        self._at_once = False
        self._bytes, self._items, self._looks = _ALL_BYTES, _ITEMS, _LOOKS
        # The objects themselves, so that no other gets the identity of one.
        self._containers: dict[int, Any] = {}
        self._memory: dict[int, _Memory] = {}

    def copy_at_once(self) -> None:
        """Copy all memory now, and what will be noted then: nothing tells of writes."""
        self._at_once = True
        for memory in self._memory.values():
            memory.save()

    def note(self, name: str, tensor: torch.Tensor, trained: bool = False) -> list[PutBack]:
        """Note a tensor; one that is trained isn't copied before an operation writes it.

        Args:
            name: How a warning calls it.
            tensor: The tensor.
            trained: Whether only training is expected to write it.

        Returns:
            Functions that put it back.
        """
        return [_Tensor(name, part, self._memory_of(part, trained), self.changed).put_back for part in parts_of(tensor)]

    def _memory_of(self, tensor: torch.Tensor, trained: bool) -> _Memory | None:
        storage = storage_of(tensor)
        if storage is None:
            return None
        memory = self._memory.get(id(storage))
        if memory is None:
            memory = self._memory[id(storage)] = _Memory(storage)
        if self._at_once or (not trained and self._copies(storage.nbytes())):
            memory.save()
        return memory

    def note_array(self, name: str, array: np.ndarray[Any, Any]) -> list[PutBack]:
        """Note an array; of a large one only what tells whether it was changed. Return functions that put it back."""
        if not array.flags.writeable:
            return []
        # Of objects only the references are copied.
        copies = array.dtype.hasobject or self._copies(array.nbytes)
        return [_Array(name, array, copies, self.changed).put_back] if copies or not _is_mapped(array) else []

    def save(self, tensor: torch.Tensor) -> None:
        """Copy the memory of a tensor that is about to be written, if it is one that was noted."""
        storage = storage_of(tensor)
        memory = None if storage is None else self._memory.get(id(storage))
        if memory is not None:
            memory.save()

    def forget(self, tensors: list[torch.Tensor], containers: list[Any]) -> None:
        """Forget what tensors and containers were, which are to be noted anew."""
        for part in [part for tensor in tensors for part in parts_of(tensor)]:
            memory = self._memory.get(id(storage_of(part)))
            if memory is not None:
                memory.forget()
        for container in containers:
            self._containers.pop(id(container), None)

    def first(self, value: Any) -> bool:
        """Return whether a container is seen for the first time, and may be noted; one may contain itself."""
        if id(value) in self._containers or len(value) > self._items:
            return False
        self._items -= len(value)
        self._containers[id(value)] = value
        return True

    def looks_at(self, items: Any) -> bool:
        """Return whether there is anything to look at in the items of a container, and it may be."""
        if all(_role_of(kind) is _Role.LEFT for kind in set(map(type, items))):
            return False
        self._looks -= len(items)
        return self._looks >= 0

    def _copies(self, size: int) -> bool:
        if size <= _ALWAYS:
            return True
        if size > min(_BYTES, self._bytes):
            return False
        self._bytes -= size
        return True


class _Memory:
    """The memory of tensors, with a copy of it once it may have been written."""

    def __init__(self, storage: torch.UntypedStorage) -> None:
        self._storage = storage
        self._saved: torch.Tensor | None = None

    @property
    def is_saved(self) -> bool:
        return self._saved is not None

    def save(self) -> None:
        if self._saved is None:
            self._saved = self._flat().clone()

    def forget(self) -> None:
        """Forget what it was; other tensors may have it, too, and count on a copy."""
        if self._saved is not None:
            self._saved = self._flat().clone()

    def put_back(self) -> None:
        if self._saved is None:
            return
        if self._storage.nbytes() != self._saved.numel():
            self._storage.resize_(self._saved.numel())
        # Past autograd, so that what was computed before can still be derived. What wasn't changed may be in memory that can
        # only be read, such as that of a mapped file.
        now = self._flat()
        if not (now.is_cpu and torch.equal(now, self._saved)):
            now.copy_(self._saved)

    def _flat(self) -> torch.Tensor:
        return torch.empty(0, dtype=torch.uint8, device=self._storage.device).set_(self._storage)


class _Tensor:
    """A tensor as it was, without the content of its memory."""

    def __init__(self, name: str, tensor: torch.Tensor, memory: _Memory | None, changed: list[str]) -> None:
        self._name, self._tensor, self._memory, self._changed = name, tensor, memory, changed
        self._before = None if memory is None or tensor.is_inference() else tensor.data
        self._writes = version_of(tensor)

    def put_back(self) -> None:
        now, before, memory = self._tensor, self._before, self._memory
        if version_of(now) != self._writes and (memory is None or not memory.is_saved):
            self._changed.append(self._name)
        if before is not None:
            same = now.shape == before.shape and now.dtype == before.dtype and now.stride() == before.stride()
            if not (same and now.data_ptr() == before.data_ptr()):
                now.data = before
        if memory is not None:
            memory.put_back()


class _Array:
    """An array as it was: a copy of it, or of a large one what tells whether it was changed."""

    def __init__(self, name: str, array: np.ndarray[Any, Any], copies: bool, changed: list[str]) -> None:
        self._name, self._array, self._changed = name, array, changed
        self._copy = array.copy() if copies else None
        self._digest = 0 if copies else _digest(array)

    def put_back(self) -> None:
        array, before = self._array, self._copy
        if before is None:
            if _digest(array) != self._digest:
                self._changed.append(self._name)
        elif array.tobytes() != before.tobytes():
            # As bytes, and only what was changed, as with tensors.
            np.copyto(array, before)


def _digest(array: np.ndarray[Any, Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _is_mapped(array: np.ndarray[Any, Any]) -> bool:
    base: Any = array
    while base is not None:
        if isinstance(base, (np.memmap, mmap.mmap)):
            return True
        base = getattr(base, "base", None)
    return False


class _Module:
    """The attributes and weights of a module as they were, without the modules inside; their values are the trial's."""

    def __init__(self, module: torch.nn.Module, seen: _Seen) -> None:
        self.module = module
        self._parts = self._parts_now()
        self._seen = seen
        seen.parts[id(module)] = module
        self._note_tensors()
        self._attributes = _Attributes(module, seen)

    def _note_tensors(self) -> None:
        module, seen, kind = self.module, self._seen, type(self.module)
        # What stands in the tables may be replaced as well as changed.
        self._tables = [(table, dict(table)) for table in tensor_tables(module)]
        (_, weights), (_, buffers) = self._tables
        of_torch = "built" not in vars(module)
        self._contents: list[PutBack] = []
        for name, weight in weights.items():
            if weight is not None:
                seen.parts[id(weight)] = weight
                trained = is_builtin(kind) or (of_torch and weight.requires_grad)
                self._contents += seen.note(f"{kind.__name__}.{name}", weight, trained)
        for name, buffer in buffers.items():
            if buffer is not None:
                self._contents += seen.note(f"{kind.__name__}.{name}", buffer)

    def note_anew(self) -> None:
        """Note what the module is now; of its attributes only where no parts were made meanwhile, which they remember."""
        made = self.made()
        self._seen.forget([tensor for table, _ in self._tables for tensor in table.values() if tensor is not None], [])
        self._note_tensors()
        if not made:
            self._attributes.forget()
            self._attributes = _Attributes(self.module, self._seen)

    def _parts_now(self) -> tuple[Any, ...]:
        weights, buffers = tensor_tables(self.module)
        return children_of(self.module), {name: weight is None for name, weight in weights.items()}, set(buffers)

    def made(self) -> bool:
        """Return whether parts were made meanwhile, which stay."""
        return self._parts_now() != self._parts or self._attributes.made()

    def put_back(self, attributes: bool) -> None:
        for table, before in self._tables:
            table.update({name: tensor for name, tensor in before.items() if name in table and tensor is not None})
        for put_back in self._contents:
            put_back()
        if attributes:
            self._attributes.put_back()


class _Attributes:
    """The plain attributes of an object as they were."""

    def __init__(self, owner: Any, seen: _Seen) -> None:
        self._state, self._seen = vars(owner), seen
        self._all = dict(self._state)
        self._before = {name: value for name, value in self._all.items() if name not in _OF_TORCH}
        self._contents: list[PutBack] = []
        self._containers: list[_Container] = []
        # What was noted, for `forget`.
        self._noted: tuple[list[torch.Tensor], list[Any]] = [], []
        kind = type(owner).__name__
        for name, value in self._before.items():
            if _role_of(type(value)) is not _Role.LEFT:
                self._note(f"{kind}.{name}", value)

    def _note(self, name: str, value: Any) -> None:
        """Note the content of a value that can be changed."""
        seen = self._seen
        match _role_of(type(value)):
            case _Role.PART:
                seen.parts[id(value)] = value
            case _Role.TENSOR:
                self._noted[0].append(value)
                self._contents += seen.note(name, value)
            case _Role.ARRAY:
                self._contents += seen.note_array(name, value)
            case _Role.SEED:
                self._contents.append(_Attributes(value, seen).put_back)
            case _Role.GENERATOR:
                self._contents.append(partial(set_generator_state, value, generator_state(value)))
            case _Role.CONTAINER if seen.first(value):
                self._noted[1].append(value)
                if isinstance(value, (list, deque, set, dict)):
                    self._containers.append(_Container(value))
                items = value.values() if isinstance(value, dict) else value
                if seen.looks_at(items):
                    for item in items:
                        self._note(name, item)

    def forget(self) -> None:
        """Forget what it was, so that it can be noted as it is now."""
        self._seen.forget(*self._noted)

    def _changed(self) -> list[str]:
        """Return the attributes that were set to another object, or are new."""
        state, before = self._state, self._all
        if len(state) == len(before) and not any(map(is_not, state.values(), before.values())):
            return []
        return [
            name
            for name, value in self._state.items()
            if name not in _OF_TORCH and not (name in self._before and value is self._before[name])
        ]

    def made(self) -> bool:
        """Return whether lists or dicts have modules, layers or weights that weren't there before."""
        values = [self._state[name] for name in self._changed()]
        values += [container.value for container in self._containers if container.changed()]
        return any(self._has_new_part(value, set()) for value in values)

    def _has_new_part(self, value: Any, seen: set[int]) -> bool:
        if isinstance(value, _PART):
            return id(value) not in self._seen.parts
        if not isinstance(value, _CONTAINER) or id(value) in seen:
            return False
        seen.add(id(value))
        return any(self._has_new_part(item, seen) for item in (value.values() if isinstance(value, dict) else value))

    def put_back(self) -> None:
        for name in self._changed():
            if not _is_plain(self._state[name], set()):
                continue
            if name not in self._before:
                del self._state[name]
            elif _is_plain(self._before[name], set()):
                self._state[name] = self._before[name]
        for container in self._containers:
            container.put_back()
        for put_back in self._contents:
            put_back()


class _Container:
    """The items of a container as they were, without what is in them."""

    def __init__(self, value: Any) -> None:
        self.value, self._before = value, value.copy()

    def changed(self) -> bool:
        value, before = self.value, self._before
        if len(value) != len(before):
            return True
        if isinstance(value, set):
            return bool(value != before)
        if any(map(is_not, value, before)):
            return True
        return isinstance(value, dict) and any(map(is_not, value.values(), before.values()))

    def put_back(self) -> None:
        value = self.value
        if self.changed() and _is_plain(value, set()) and _is_plain(self._before, set()):
            value.clear()
            (value.extend if isinstance(value, (list, deque)) else value.update)(self._before)


def _is_plain(value: Any, seen: set[int]) -> bool:
    """Return whether a value is no part of a model, and nothing that is unknown."""
    if isinstance(value, _CONTAINER):
        if id(value) in seen:
            return True
        seen.add(id(value))
        items = value.values() if isinstance(value, dict) else value
        return all(issubclass(kind, _CONSTANT) for kind in set(map(type, items))) or all(
            _is_plain(item, seen) for item in items
        )
    if isinstance(value, torch.Tensor):
        return not isinstance(value, torch.nn.Parameter)
    return isinstance(value, (*_CONSTANT, np.ndarray))
