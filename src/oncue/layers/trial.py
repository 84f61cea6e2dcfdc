"""Trial: a run of layers of which only the outputs' shapes are wanted, so that nothing of it stays."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from oncue.core.builtin import is_builtin
from oncue.random import SeedGenerator
from oncue.random_state import generator_state, is_generator, rewinder, set_generator_state
from oncue.torch_private import children_of, tensor_tables

PutBack = Callable[[], object]

_CONSTANT = (type(None), bool, int, float, complex, str, bytes, np.generic, torch.Size, torch.dtype, torch.device)
_OF_TORCH = frozenset(vars(torch.nn.Module())) - {"training"}
"""Where torch keeps the parts of a module, which building adds to."""


class Trial:
    """Puts back, when its block ends, what runs inside have changed.

    That is the values of weights and buffers, plain attributes of modules (numbers, strings, tensors, arrays, and containers
    of them), and all random generators.

    What building makes stays: a layer that is built inside is kept as its `build` left it, and so are the random numbers
    that its weights took. Where a call makes layers or weights itself, that module's attributes are left alone. The weights
    of oncue's own layers, and trainable ones of torch's modules, are taken to be changed by training only: copies of them
    would double a model.

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

    def __enter__(self) -> Self:
        modules = [module for owner in self._owners if isinstance(owner, torch.nn.Module) for module in owner.modules()]
        for module in modules:
            self.keep(module)
        self._others = [_attributes_of(owner) for owner in self._owners if not isinstance(owner, torch.nn.Module)]
        if _running.draws is None or _running.draws.building:
            # Lazy modules of torch are built by their first run, and draw their weights then.
            counts = not any(map(_is_lazy, modules))
            self._before, self._draws = _running.draws, _Draws(rewinder() if counts else None)
            _running.draws = self._draws
        _running.trials.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        _running.trials.remove(self)
        made = [kept.put_back() for kept in self._modules.values()]
        for put_back in self._others:
            put_back()
        if self._draws is not None:
            _running.draws = self._before
            if not any(made):
                self._draws.rewind()

    def keep(self, module: torch.nn.Module) -> None:
        """Put a module back to how it is now when the trial ends; one that isn't built yet only when it is."""
        if id(module) not in self._modules and vars(module).get("built", True) and not _is_lazy(module):
            self._modules[id(module)] = _Module(module)


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


class _Module:
    """The values, attributes and weights of a module as they were, without the modules inside."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._parts = self._parts_now()
        # What stands in the tables may be replaced as well as changed.
        self._tables = [(table, dict(table)) for table in tensor_tables(module)]
        of_torch = "built" not in vars(module)
        copied = [buffer for buffer in self._tables[1][1].values() if buffer is not None]
        if not is_builtin(type(module)):
            weights = (weight for weight in self._tables[0][1].values() if weight is not None)
            copied += [weight for weight in weights if not (of_torch and weight.requires_grad)]
        self._values = [put_back for put_back in map(_tensor, copied) if put_back is not None]
        self._attributes = _attributes_of(module)

    def _parts_now(self) -> tuple[Any, ...]:
        return children_of(self._module), *map(set, tensor_tables(self._module))

    def put_back(self) -> bool:
        """Put them back, and return whether parts were made meanwhile, which stay."""
        made = self._parts_now() != self._parts
        for table, before in self._tables:
            table.update({name: tensor for name, tensor in before.items() if name in table and tensor is not None})
        for put_back in self._values:
            put_back()
        if not made:
            # Otherwise attributes remember what was made.
            self._attributes()
        return made


def _attributes_of(owner: Any) -> PutBack:
    state = vars(owner)
    before = {name: value for name, value in state.items() if name not in _OF_TORCH}
    contents = [content for content in (_content(value) for value in before.values()) if content is not None]

    def put_back() -> None:
        for name, value in list(state.items()):
            if name in _OF_TORCH or not _is_plain(value):
                continue
            if name not in before:
                del state[name]
            elif value is not before[name] and _is_plain(before[name]):
                state[name] = before[name]
        for restore in contents:
            restore()

    return put_back


def _is_plain(value: Any) -> bool:
    """Return whether a value is no part of a model, and nothing that is unknown."""
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, torch.Tensor):
        return not isinstance(value, torch.nn.Parameter)
    return isinstance(value, (*_CONSTANT, np.ndarray))


def _content(value: Any) -> PutBack | None:
    """Return what puts back the content of a value that can be changed; None for others."""
    if isinstance(value, _CONSTANT):
        return None
    if isinstance(value, torch.Tensor):
        return _tensor(value)
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, SeedGenerator):
        return _attributes_of(value)
    if is_generator(value):
        return partial(set_generator_state, value, generator_state(value))
    if isinstance(value, (list, deque, set, dict)) and _is_plain(value):
        return _container(value)
    if isinstance(value, tuple):
        return _all(filter(None, map(_content, value)))
    return None


def _container(value: Any) -> PutBack:
    before = value.copy()
    inside = _all(filter(None, map(_content, value.values() if isinstance(value, dict) else value)))

    def put_back() -> None:
        if _is_plain(value):
            value.clear()
            (value.extend if isinstance(value, (list, deque)) else value.update)(before)
            inside()

    return put_back


def _tensor(tensor: torch.Tensor) -> PutBack | None:
    if tensor.is_meta or tensor.is_inference() or tensor.layout != torch.strided:
        return None
    if any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)):
        # Torch refuses to write where several elements share their memory.
        return None
    before = tensor.detach().clone()

    def put_back() -> None:
        # Past autograd, so that what was computed from the tensor before can still be derived.
        if tensor.shape == before.shape:
            tensor.data.copy_(before)
        else:
            tensor.data = before

    return put_back


def _array(array: np.ndarray[Any, Any]) -> PutBack | None:
    if not array.flags.writeable:
        return None
    return partial(np.copyto, array, array.copy())


def _all(parts: Iterable[PutBack]) -> PutBack:
    steps = list(parts)

    def put_back() -> None:
        for step in steps:
            step()

    return put_back
