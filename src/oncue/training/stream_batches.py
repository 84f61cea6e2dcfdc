"""Generators, iterators and iterables of batches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from oncue.training.batch import Batch, Batches
from oncue.training.deliver import Deliver

_END = object()


class StreamBatches(Batches):
    """Batches that can only be read one after another.

    A generator or iterator goes on in the next epoch where it stopped; an iterable starts anew. Looking at the first
    batch keeps it for the next pass.

    Args:
        source: Anything with `__iter__` that gives batches.
        deliver: Converts and checks what comes.
        open_pass: Begins one pass; default `iter(source)`.
        batch_size: Samples per batch where known.

    Example:
        >>> import torch
        >>> stream = StreamBatches((([[i]],) for i in range(3)), Deliver("generator", torch.device("cpu")))
        >>> stream.first()[0].tolist(), [x.tolist() for x, _, _ in stream.epoch()]
        ([[0]], [[[0]], [[1]], [[2]]])
    """

    def __init__(
        self,
        source: Iterable[Any],
        deliver: Deliver,
        open_pass: Callable[[], Iterator[Any]] | None = None,
        batch_size: int | None = None,
    ) -> None:
        """See the class."""
        self.source = source
        self.restartable = not isinstance(source, Iterator)
        self.batch_size = batch_size
        self.num_batches = _length(source)
        self._deliver = deliver
        self._open = open_pass if open_pass is not None else lambda: iter(source)
        self._opened: Iterator[Any] | None = None
        self._looked_at: Any = _END
        self._passes = 0

    def first(self) -> Batch:
        """Return the first batch and keep it for the next pass."""
        if self._looked_at is _END:
            if self._opened is None:
                self._opened = self._open()
            self._looked_at = next(self._opened, _END)
        if self._looked_at is _END:
            raise ValueError(f"The {self._deliver.kind} gave no batch at all; it must give at least one.")
        return self._deliver(self._looked_at, 0)

    def epoch(self, start: int = 0) -> Iterator[Batch]:
        """Return one pass; the `start` first batches are read and dropped."""
        passes, self._passes = self._passes, self._passes + 1
        taken = start
        for data in islice(self._raw(), start, None):
            yield self._deliver(data, taken)
            taken += 1
        if taken == start and passes == 0 and not start:
            raise ValueError(f"The {self._deliver.kind} gave no batch at all; it must give at least one.")
        if taken == start:
            warnings.warn(
                f"The {self._deliver.kind} ran out of data: epoch {passes + 1} got no batch. Pass something that can "
                "be read again (a list of batches, a DataLoader, a PyDataset), or a generator that never ends together "
                "with `steps_per_epoch`.",
                UserWarning,
                stacklevel=2,
            )

    def _raw(self) -> Iterator[Any]:
        opened = self._opened if self._opened is not None else self._open()
        self._opened = None if self.restartable else opened
        if self._looked_at is not _END:
            data, self._looked_at = self._looked_at, _END
            yield data
        # Not `yield from`: it would close the user's generator when a pass is left half-way.
        for data in opened:
            yield data


def _length(source: Any) -> int | None:
    try:
        return len(source)
    except (TypeError, NotImplementedError):
        return None
