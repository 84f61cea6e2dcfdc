"""Trial: a run of layers of which only the outputs' shapes are wanted, so that nothing of it stays."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import is_not
from typing import Any, Self

import numpy as np
import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from oncue.core.builtin import is_builtin
from oncue.random import SeedGenerator
from oncue.random_state import generator_state, is_generator, rewinder, set_generator_state
from oncue.torch_private import children_of, tensor_tables
from oncue.variable import Variable

PutBack = Callable[[], object]

_CONSTANT = (type(None), bool, int, float, complex, str, bytes, np.generic, torch.Size, torch.dtype, torch.device)
_OF_TORCH = frozenset(vars(torch.nn.Module())) - {"training"}
"""Where torch keeps the parts of a module, which building adds to."""

_PART = (torch.nn.Module, torch.nn.Parameter, Variable)
_CONTAINER = (list, tuple, set, frozenset, deque, dict)

_ALWAYS, _BYTES, _ALL_BYTES = 2**12, 2**20, 2**24
"""What a tensor or array may hold that is always copied; the most that one, and all others, may hold to be copied."""

_ITEMS, _ALL_ITEMS, _ALL_LARGE = 1000, 10_000, 100_000
"""The most items of a container of which each is looked into, of all of them, and of all larger ones, which are noted."""


class Trial:
    """Puts back, when its block ends, what runs inside have changed.

    That is the values of weights and buffers, plain attributes of modules (numbers, strings, tensors, arrays, and containers
    of them), and all random generators.

    What building makes stays: a layer that is built inside is kept as its `build` left it, and so are the random numbers
    that its weights took. Where a call makes layers or weights itself, the attributes of that module, and of those around
    it, are left alone. The weights of oncue's own layers, and trainable ones of torch's modules, are taken to be changed by
    training only: copies of them would double a model. For the same reason tensors and arrays of more than 1 MiB are left
    alone, those of more than 4 KiB after the first 16 MiB, and containers of more than 1000 items after the first 100 000
    items, others after the first 10 000. Of the items of one of more than 1000, none is looked into.

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
        self._limits = _Limits()

    def __enter__(self) -> Self:
        modules = [module for owner in self._owners if isinstance(owner, torch.nn.Module) for module in owner.modules()]
        for module in modules:
            self.keep(module)
        others = [owner for owner in self._owners if not isinstance(owner, torch.nn.Module)]
        self._others = [_Attributes(owner, self._limits) for owner in others]
        if _running.draws is None or _running.draws.building:
            # Lazy modules of torch are built by their first run, and draw their weights then.
            counts = not any(map(_is_lazy, modules))
            self._before, self._draws = _running.draws, _Draws(rewinder() if counts else None)
            _running.draws = self._draws
        _running.trials.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        _running.trials.remove(self)
        found: dict[int, bool] = {}
        made = [self._made(kept.module, found) for kept in self._modules.values()]
        for kept in self._modules.values():
            kept.put_back(attributes=not found[id(kept.module)])
        for other in self._others:
            other.put_back()
        if self._draws is not None:
            _running.draws = self._before
            if not any(made):
                self._draws.rewind()

    def keep(self, module: torch.nn.Module) -> None:
        """Put a module back to how it is now when the trial ends; one that isn't built yet only when it is."""
        if id(module) not in self._modules and vars(module).get("built", True) and not _is_lazy(module):
            self._modules[id(module)] = _Module(module, self._limits)

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
            for part in module.modules():
                trial.keep(part)


def _is_lazy(module: torch.nn.Module) -> bool:
    own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return any(isinstance(tensor, (UninitializedParameter, UninitializedBuffer)) for tensor in own)


class _Limits:
    """How much a trial may still copy, and what it has seen."""

    def __init__(self) -> None:
        self._bytes, self._items, self._large = _ALL_BYTES, _ALL_ITEMS, _ALL_LARGE
        # The objects themselves, so that no other gets the identity of one.
        self._seen: dict[int, Any] = {}
        self.parts: dict[int, Any] = {}

    def first(self, value: Any) -> bool:
        """Return whether a container is seen for the first time; one may contain itself."""
        if id(value) in self._seen:
            return False
        self._seen[id(value)] = value
        return True

    def copies(self, size: int) -> bool:
        if size <= _ALWAYS:
            return True
        if size > min(_BYTES, self._bytes):
            return False
        self._bytes -= size
        return True

    def notes(self, items: int) -> bool:
        if items <= _ITEMS:
            self._items -= items
            return self._items >= 0
        if items > self._large:
            return False
        self._large -= items
        return True


class _Module:
    """The values, attributes and weights of a module as they were, without the modules inside."""

    def __init__(self, module: torch.nn.Module, limits: _Limits) -> None:
        self.module = module
        self._parts = self._parts_now()
        # What stands in the tables may be replaced as well as changed.
        self._tables = [(table, dict(table)) for table in tensor_tables(module)]
        of_torch = "built" not in vars(module)
        copied = [buffer for buffer in self._tables[1][1].values() if buffer is not None]
        weights = [weight for weight in self._tables[0][1].values() if weight is not None]
        limits.parts.update({id(part): part for part in (module, *weights)})
        if not is_builtin(type(module)):
            copied += [weight for weight in weights if not (of_torch and weight.requires_grad)]
        self._values = [put_back for put_back in (_tensor(tensor, limits) for tensor in copied) if put_back is not None]
        self._attributes = _Attributes(module, limits)

    def _parts_now(self) -> tuple[Any, ...]:
        weights, buffers = tensor_tables(self.module)
        return children_of(self.module), {name: weight is None for name, weight in weights.items()}, set(buffers)

    def made(self) -> bool:
        """Return whether parts were made meanwhile, which stay."""
        return self._parts_now() != self._parts or self._attributes.made()

    def put_back(self, attributes: bool) -> None:
        for table, before in self._tables:
            table.update({name: tensor for name, tensor in before.items() if name in table and tensor is not None})
        for put_back in self._values:
            put_back()
        if attributes:
            self._attributes.put_back()


class _Attributes:
    """The plain attributes of an object as they were."""

    def __init__(self, owner: Any, limits: _Limits) -> None:
        self._state, self._limits = vars(owner), limits
        self._before = {name: value for name, value in self._state.items() if name not in _OF_TORCH}
        self._contents: list[PutBack] = []
        self._containers: list[_Container] = []
        for value in self._before.values():
            self._note(value)

    def _note(self, value: Any) -> None:
        """Note the content of a value that can be changed."""
        limits = self._limits
        if isinstance(value, _CONSTANT):
            return
        if isinstance(value, _PART):
            limits.parts[id(value)] = value
        elif isinstance(value, torch.Tensor):
            self._keep(_tensor(value, limits))
        elif isinstance(value, np.ndarray):
            self._keep(_array(value, limits))
        elif isinstance(value, SeedGenerator):
            self._keep(_Attributes(value, limits).put_back)
        elif is_generator(value):
            self._keep(partial(set_generator_state, value, generator_state(value)))
        elif isinstance(value, _CONTAINER) and limits.first(value) and limits.notes(len(value)):
            if isinstance(value, (list, deque, set, dict)):
                self._containers.append(_Container(value))
            if len(value) <= _ITEMS:
                for item in value.values() if isinstance(value, dict) else value:
                    self._note(item)

    def _keep(self, put_back: PutBack | None) -> None:
        if put_back is not None:
            self._contents.append(put_back)

    def _changed(self) -> list[str]:
        """Return the attributes that were set to another object, or are new."""
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
            return id(value) not in self._limits.parts
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
        return all(_is_plain(item, seen) for item in (value.values() if isinstance(value, dict) else value))
    if isinstance(value, torch.Tensor):
        return not isinstance(value, torch.nn.Parameter)
    return isinstance(value, (*_CONSTANT, np.ndarray))


def _tensor(tensor: torch.Tensor, limits: _Limits) -> PutBack | None:
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_meta or tensor.is_inference():
        return None
    if any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)):
        # Torch refuses to write where several elements share their memory.
        return None
    if not limits.copies(tensor.numel() * tensor.element_size()):
        return None
    before = tensor.detach().clone()

    def put_back() -> None:
        # Past autograd, so that what was computed from the tensor before can still be derived.
        if tensor.shape != before.shape:
            tensor.data = before
        elif not (tensor.is_cpu and _same(tensor.detach(), before)):
            # What wasn't changed may be in memory that can only be read, such as that of a mapped file.
            tensor.data.copy_(before)

    return put_back


def _same(one: torch.Tensor, two: torch.Tensor) -> bool:
    if one.is_quantized:
        return torch.equal(one, two)
    # As bytes: NaN differs from itself.
    flat = [tensor.resolve_conj().resolve_neg().reshape(-1).contiguous().view(torch.uint8) for tensor in (one, two)]
    return torch.equal(*flat)


def _array(array: np.ndarray[Any, Any], limits: _Limits) -> PutBack | None:
    if not (array.flags.writeable and limits.copies(array.nbytes)):
        return None
    before = array.copy()

    def put_back() -> None:
        # As bytes, and only what was changed, as with tensors.
        if array.tobytes() != before.tobytes():
            np.copyto(array, before)

    return put_back
