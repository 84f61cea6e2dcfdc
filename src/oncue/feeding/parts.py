"""What a source of data is made of, as far as it changes while it is read: data sets, samplers, random generators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, ChainDataset, ConcatDataset, DataLoader, StackDataset, Subset

from oncue.random_state import generator_state, is_generator, random_state

_DEEPEST = 3
"""How far to look for generators: in attributes of a data set, of its transform, and of what this is composed of."""
_ATOMS = frozenset({str, int, float, bool, bytes, type(None), np.ndarray, torch.Tensor})
_MOST = 32
"""How many things in a container are looked at: more are data."""


def is_stateful(source: Any) -> bool:
    """Return whether a source can save and restore its state, as torchdata's StatefulDataLoader can.

    Example:
        >>> is_stateful(iter([]))
        False
    """
    return all(callable(getattr(source, name, None)) for name in ("state_dict", "load_state_dict"))


def parts_of(source: Any) -> list[Any]:
    """Return a source and what it reads from, each object once.

    These are a loader's samplers, data set and collate function, and the data sets that torch's own are made of.

    Args:
        source: Anything that can be fed.

    Example:
        >>> numbers = [1, 2, 3]
        >>> [type(part).__name__ for part in parts_of(Subset(ConcatDataset([numbers, numbers]), [0, 4]))]
        ['Subset', 'ConcatDataset', 'list']
    """
    found: list[Any] = []
    waiting = [source]
    while waiting:
        part = waiting.pop(0)
        if part is None or any(part is other for other in found):
            continue
        found.append(part)
        waiting += _inside(part)
    return found


def data_sets_of(source: Any) -> list[Any]:
    """Return the data sets that a source reads from, and its collate function, as far as callbacks may change them.

    Those of workers that stay are left out, as they have copies; and those that have `state_dict` or `set_epoch`, which say by
    themselves what they depend on.

    Args:
        source: Anything that can be fed.

    Example:
        >>> class Level:
        ...     def __getitem__(self, index):
        ...         return index
        >>> level = Level()
        >>> data_sets_of(DataLoader(Subset(level, [0, 1])))[1] is level
        True
    """
    roots = [source]
    if isinstance(source, DataLoader):
        roots = [] if source.num_workers and source.persistent_workers else [source.dataset, source.collate_fn]
    parts = [part for root in roots for part in parts_of(root)]
    return [
        part for part in parts if not is_stateful(part) and not hasattr(part, "set_epoch") and hasattr(part, "__dict__")
    ]


def random_of(parts: Iterable[Any]) -> tuple[Any, list[Any]]:
    """Return the states of the global random generators of the host, and of those that objects hold.

    Args:
        parts: The objects.
    """
    return random_state(cuda=False), [generator_state(one) for one in generators_of(parts)]


def generators_of(parts: Iterable[Any]) -> list[Any]:
    """Return the random generators that are attributes of objects, or of what these have as attributes, each once.

    Args:
        parts: The objects.

    Example:
        >>> import numpy as np
        >>> class Noise:
        ...     def __init__(self):
        ...         self.draw = np.random.default_rng(0)
        >>> class Noisy:
        ...     def __init__(self):
        ...         self.transforms = [Noise()]
        >>> noisy = Noisy()
        >>> generators_of([noisy, noisy]) == [noisy.transforms[0].draw]
        True
    """
    found: list[Any] = []
    seen: dict[int, Any] = {}
    objects = list(parts)
    for _ in range(_DEEPEST):
        following = []
        for value in chain.from_iterable(map(_values, objects)):
            if type(value) in _ATOMS or id(value) in seen:
                continue
            # Held, so that no other object gets its identity.
            seen[id(value)] = value
            if is_generator(value):
                found.append(value)
            elif not _is_model(value):
                following.append(value)
        objects = following
    return found


def _values(thing: Any) -> Iterator[Any]:
    """Give the values of an object's attributes, and what is in those that are short containers."""
    if isinstance(thing, (type, ModuleType, FunctionType)):
        return
    if isinstance(thing, partial):
        yield from (thing.func, *thing.args, *thing.keywords.values())
    elif isinstance(thing, MethodType):
        yield thing.__self__
    for value in list(getattr(thing, "__dict__", {}).values()):
        kind = type(value)
        if kind in _ATOMS:
            continue
        if kind is dict:
            yield from islice(list(value.values()), _MOST)
        elif kind in (list, tuple):
            yield from islice(value, _MOST)
        else:
            yield value


def _is_model(value: Any) -> bool:
    # What a model holds has its place in a state already; a transform may be a module, too.
    return isinstance(value, torch.nn.Module) and next(value.parameters(), None) is not None


def _inside(part: Any) -> list[Any]:
    if isinstance(part, DataLoader):
        return [part.batch_sampler, part.sampler, part.dataset, part.collate_fn]
    if isinstance(part, BatchSampler):
        return [part.sampler]
    if isinstance(part, Subset):
        return [part.dataset]
    if isinstance(part, (ConcatDataset, ChainDataset, StackDataset)):
        inner: Any = part.datasets
        return list(inner.values() if isinstance(inner, Mapping) else inner)
    return []
