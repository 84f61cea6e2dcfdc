"""What a source of data is made of, as far as it changes while it is read: data sets, samplers, random generators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch.utils.data import BatchSampler, ChainDataset, ConcatDataset, DataLoader, StackDataset, Subset

from oncue.random_state import is_generator


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


def generators_of(parts: Iterable[Any]) -> list[Any]:
    """Return the random generators that are attributes of objects, each once.

    Args:
        parts: The objects.

    Example:
        >>> import numpy as np
        >>> class Noisy:
        ...     def __init__(self):
        ...         self.draw = np.random.default_rng(0)
        >>> noisy = Noisy()
        >>> generators_of([noisy, noisy]) == [noisy.draw]
        True
    """
    found: list[Any] = []
    for part in parts:
        for value in getattr(part, "__dict__", {}).values():
            if is_generator(value) and not any(value is other for other in found):
                found.append(value)
    return found


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
