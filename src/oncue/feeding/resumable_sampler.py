"""A DataLoader's sampler that can resume within a pass: it draws the indices again, without loading samples."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np


class ResumableSampler:
    """Wraps a loader's sampler, and can start its next pass at a later batch.

    Args:
        sampler: The loader's batch sampler, or its sampler if it has no batch sampler.
        start: Batches to skip in the next pass.

    Example:
        >>> sampler = ResumableSampler([[0, 1], [2, 3], [4]], start=1)
        >>> list(sampler), list(sampler)
        ([[2, 3], [4]], [[0, 1], [2, 3], [4]])
    """

    def __init__(self, sampler: Any, start: int = 0) -> None:
        self._sampler = sampler
        self._start = start
        self._current: _Pass | None = None

    def __iter__(self) -> Iterator[Any]:
        self._current = _Pass(self._sampler, self)
        return self._current

    def __len__(self) -> int:
        return len(self._sampler)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_sampler":
            raise AttributeError(name)
        return getattr(self._sampler, name)

    def restart(self, start: int) -> None:
        """Start the next pass at batch `start`."""
        self._start = start

    def begin(self) -> None:
        """Skip the batches now unless already done, so that all random numbers this takes are drawn now."""
        if self._current is not None:
            self._current.begin()

    def indices(self, number: int) -> list[int] | None:
        """Return the indices of a batch of the current pass; None if they aren't integers or have been forgotten."""
        return None if self._current is None else _integers(self._current.drawn.get(number))

    def forget(self, number: int) -> None:
        """Drop the indices of a batch. Batches prefetched by workers are drawn long before they are yielded."""
        if self._current is not None:
            self._current.drawn.pop(number, None)

    def take_start(self) -> int:
        """Return the number of batches to skip, and reset it to 0."""
        start, self._start = self._start, 0
        return start


class _Pass:
    def __init__(self, sampler: Any, owner: ResumableSampler) -> None:
        self._indices = iter(sampler)
        self._owner: ResumableSampler | None = owner
        self._number = 0
        self.drawn: dict[int, Any] = {}

    def begin(self) -> None:
        if self._owner is not None:
            start, self._owner = self._owner.take_start(), None
            for indices in islice(self._indices, start):
                self.drawn = {self._number: indices}
                self._number += 1

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self.begin()
        indices = next(self._indices)
        self.drawn[self._number] = indices
        self._number += 1
        return indices


def _integers(indices: Any) -> list[int] | None:
    try:
        array = np.asarray(indices)
    except (ValueError, TypeError):
        return None
    return [int(index) for index in array.reshape(-1)] if array.dtype.kind in "iu" else None
