"""A place in the indices of a DataLoader: taken up again by drawing indices, without loading a sample."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np


class ResumableSampler:
    """A loader's sampler, whose next pass begins at a place.

    Args:
        sampler: What gives the indices of one batch after another.
        start: The batches to pass over in the pass that begins next.

    Example:
        >>> position = ResumableSampler([[0, 1], [2, 3], [4]], start=1)
        >>> list(position), list(position)
        ([[2, 3], [4]], [[0, 1], [2, 3], [4]])
    """

    def __init__(self, sampler: Any, start: int = 0) -> None:
        self._sampler = sampler
        self._start = start
        self._under_way: _Pass | None = None

    def __iter__(self) -> Iterator[Any]:
        self._under_way = _Pass(self._sampler, self)
        return self._under_way

    def __len__(self) -> int:
        return len(self._sampler)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_sampler":
            raise AttributeError(name)
        return getattr(self._sampler, name)

    def restart(self, start: int) -> None:
        """Let the pass that begins next pass over so many batches."""
        self._start = start

    def begin(self) -> None:
        """Pass over the batches now, if that wasn't done yet, so that all random numbers for it are drawn now."""
        if self._under_way is not None:
            self._under_way.begin()

    def indices(self, number: int) -> list[int] | None:
        """Return the indices of a batch of the pass under way; None when they are no numbers, or not known any more."""
        return None if self._under_way is None else _numbers(self._under_way.given.get(number))

    def forget(self, number: int) -> None:
        """Let go of the indices of a batch; workers that run ahead draw them long before they are asked for."""
        if self._under_way is not None:
            self._under_way.given.pop(number, None)

    def take_start(self) -> int:
        """Return how many batches to pass over, once."""
        start, self._start = self._start, 0
        return start


class _Pass:
    def __init__(self, sampler: Any, position: ResumableSampler) -> None:
        self._indices = iter(sampler)
        self._position: ResumableSampler | None = position
        self._number = 0
        self.given: dict[int, Any] = {}

    def begin(self) -> None:
        if self._position is not None:
            start, self._position = self._position.take_start(), None
            for indices in islice(self._indices, start):
                self.given = {self._number: indices}
                self._number += 1

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self.begin()
        indices = next(self._indices)
        self.given[self._number] = indices
        self._number += 1
        return indices


def _numbers(indices: Any) -> list[int] | None:
    try:
        array = np.asarray(indices)
    except (ValueError, TypeError):
        return None
    return [int(index) for index in array.reshape(-1)] if array.dtype.kind in "iu" else None
