"""The rows of each batch that one of several processes computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from oncue.feeding.batch import Batch, Batches, BatchesOver
from oncue.nested import first_leaf, map_leaves


class RowShare:
    """Which rows of a batch belong to one of several processes: a range of neighbours, as even as can be.

    A process without a row, because the batch has fewer rows than there are processes, runs the first one along, for what
    all must do together; it counts for nothing.

    Args:
        rank: The number of the process, from 0.
        size: How many there are.

    Attributes:
        rows: How many rows of the last batch belong to this process.
        total: How many rows the last batch has.
        index: The index of the last batch in its pass.
        reads: Whether the next batch is being read.

    Example:
        >>> share = RowShare(1, 3)
        >>> share.of(8), share.rows, share.total
        (slice(2, 5, None), 3, 8)
        >>> share.of(2), share.of(1), share.rows
        (slice(0, 1, None), slice(0, 1, None), 0)
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.rows = self.total = self.index = 0
        self.reads = False

    def of(self, total: int) -> slice:
        """Return the rows of a batch that this process is to take, and remember how many of them are its own.

        Args:
            total: How many rows the batch has.
        """
        begin, end = self.bounds(total, self.rank)
        self.rows, self.total = end - begin, total
        return slice(begin, end) if self.rows else slice(0, 1)

    def bounds(self, total: int, rank: int) -> tuple[int, int]:
        """Return where the rows of a process begin and end.

        Args:
            total: How many rows the batch has.
            rank: The number of the process.
        """
        return total * rank // self.size, total * (rank + 1) // self.size

    @property
    def fraction(self) -> float:
        """The share of the last batch's rows that are this process's own."""
        return self.rows / self.total if self.total else 0.0

    def reading(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Give batches, and say of itself meanwhile whether one is being read.

        Args:
            batches: The batches.
        """
        try:
            self.reads = True
            for batch in batches:
                self.reads = False
                yield batch
                self.reads = True
        finally:
            self.reads = False

    def take(self, batch: Batch) -> Batch:
        """Return this process's rows of a whole batch.

        Args:
            batch: The batch, the same on all processes.
        """
        rows = self.of(rows_of(batch))
        x, y, weight = (map_leaves(lambda leaf: _cut(leaf, rows), part) for part in batch)
        return x, y, weight


class SharedBatches(BatchesOver):
    """The batches of a source, of which each process gets its own rows.

    Positions, orders and states are those of the whole batches, so that they are the same on all processes and for any
    number of them.

    Args:
        batches: The source.
        share: Whose rows to give; told of each batch that is given.

    Example:
        >>> from oncue.feeding.arrays import ArrayBatches
        >>> share = RowShare(1, 2)
        >>> batches = SharedBatches(ArrayBatches([0, 1, 2, 3, 4], batch_size=3, device="cpu"), share)
        >>> [(x.tolist(), share.rows, share.total) for x, _, _ in batches.epoch()]
        [([1, 2], 2, 3), ([4], 1, 2)]
    """

    def __init__(self, batches: Batches, share: RowShare) -> None:
        """See the class."""
        super().__init__(batches)
        self.share = share
        # A source that reads by index needn't read the rows of others.
        self._cuts = not batches.give_rows(share)

    def epoch(self, start: int = 0) -> Iterator[Batch]:
        """Return one pass, starting at batch `start`."""
        return self._shared(self.batches.epoch(start), start)

    def one_pass(self, start: int = 0) -> Iterator[Batch]:
        """Return one pass without notifying the source of epoch boundaries."""
        return self._shared(self.batches.one_pass(start), start)

    def _shared(self, one_pass: Iterator[Batch], start: int) -> Iterator[Batch]:
        share, cuts = self.share, self._cuts
        for index, batch in enumerate(share.reading(one_pass), start):
            own = share.take(batch) if cuts else batch
            share.index = index
            yield own

    def first(self) -> Batch:
        """Return this process's rows of the source's first batch."""
        (batch,) = self.share.reading(self.batches.first() for _ in range(1))
        return self.share.take(batch)

    def epoch_begins(self) -> None:
        """Notify the source that an epoch begins."""
        self.batches.epoch_begins()

    def epoch_ends(self) -> None:
        """Notify the source that an epoch has ended."""
        self.batches.epoch_ends()

    def close(self) -> None:
        """Close the source, which gives whole batches again."""
        self.batches.give_rows(None)
        super().close()


def rows_of(batch: Batch) -> int:
    """Return how many rows a batch has.

    Example:
        >>> rows_of((torch.zeros(3, 2), None, None))
        3
    """
    leaf = first_leaf(batch[0])
    shape = getattr(leaf, "shape", ())
    return int(shape[0]) if shape else 1


def _cut(leaf: Any, rows: slice) -> Any:
    return leaf[rows] if isinstance(leaf, torch.Tensor) and leaf.ndim else leaf
