"""A DataLoader's batch sampler that gives the indices of one process's rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from oncue.feeding.row_share import RowShare


class OwnRows:
    """Wraps a loader's batch sampler, so that only the rows of one of several processes are loaded.

    Args:
        sampler: The batch sampler, which gives the same on all processes.
        share: Which rows of a batch are this process's.

    Example:
        >>> share = RowShare(1, 2)
        >>> own = OwnRows([[3, 1, 2], [0]], share)
        >>> [(indices, share.rows, share.total) for indices in own.given(iter(own))]
        [([1, 2], 2, 3), ([0], 1, 1)]
    """

    def __init__(self, sampler: Any, share: RowShare) -> None:
        self._sampler, self._share = sampler, share
        self._totals: deque[int] = deque()

    def __iter__(self) -> Iterator[Any]:
        self._totals.clear()
        # Begun here and now, because that draws random numbers.
        return self._cut(iter(self._sampler))

    def __len__(self) -> int:
        return len(self._sampler)

    def given(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Give what was loaded, and let the share know of each batch right before; workers have drawn later ones by then.

        Args:
            batches: What was loaded for the indices.
        """
        for batch in batches:
            self._share.of(self._totals.popleft())
            yield batch

    def _cut(self, batches: Iterator[Sequence[Any]]) -> Iterator[Sequence[Any]]:
        share = self._share
        for indices in batches:
            begin, end = share.bounds(len(indices), share.rank)
            self._totals.append(len(indices))
            yield indices[begin:end] if begin < end else indices[:1]
