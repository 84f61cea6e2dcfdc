"""OwnBatches: batches that each process of a run brings itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch.utils.data import DataLoader, DistributedSampler

from oncue.feeding.batch import Batch, Batches
from oncue.feeding.row_share import RowShare, SharedBatches, rows_of

if TYPE_CHECKING:
    from oncue.distribution.group import Group


def brings_own(batches: Batches) -> bool:
    """Return whether each process reads other rows of a source by itself: a DataLoader with a `DistributedSampler`."""
    source = batches.source
    return isinstance(source, DataLoader) and isinstance(source.sampler, DistributedSampler)


class OwnBatches(SharedBatches):
    """Batches that each process brings itself, of which it takes all rows."""

    def __init__(self, batches: Batches, share: RowShare, group: Group) -> None:
        super().__init__(batches, share)
        batches.give_rows(None)
        self._group = group

    def _shared(self, one_pass: Iterator[Batch], start: int) -> Iterator[Batch]:
        share, index = self.share, start
        reading = share.reading(one_pass)
        while True:
            batch = next(reading, None)
            rows = 0 if batch is None else rows_of(batch)
            total, having = self._group.sum_numbers([rows, batch is not None], "a batch of its own")
            if 0 < having < share.size:
                whose = "this" if batch is None else "another"
                raise self._group.diverged(
                    f"After {index} batches {whose} process has none left: batches that each process brings itself must be "
                    "equally many. Use a DistributedSampler, or `steps_per_epoch`."
                )
            if batch is None:
                return
            share.rows, share.total, share.index = rows, int(total), index
            index += 1
            yield batch

    def first(self) -> Batch:
        """Return the source's first batch."""
        (batch,) = self.share.reading(self.batches.first() for _ in range(1))
        return batch
