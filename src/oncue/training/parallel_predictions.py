"""Predictions: the rows that each process of a run has predicted, put together in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from oncue.feeding.row_share import RowShare
from oncue.nested import flatten, map_leaves

if TYPE_CHECKING:
    from oncue.distribution.group import Group


class Predictions:
    """What all processes predict for the rows of shared batches.

    Args:
        share: This process's rows of the batch that is being computed.
        group: The processes.
    """

    def __init__(self, share: RowShare, group: Group) -> None:
        self._share, self._group = share, group
        self.are_shared = True
        """Whether each has a part of the rows; of batches that it brings itself, each has all of its own."""
        self._counts: list[tuple[int, int]] = []

    def count(self) -> None:
        """Take note of how many rows of the last batch are this process's own, and of how many there are."""
        self._counts.append((self._share.rows, self._share.total))

    def own(self, outputs: Any) -> Any:
        """Return what this process has predicted for its own rows of the last batch, of which it may have none."""
        if not self.are_shared or self._share.rows:
            return outputs
        return map_leaves(lambda leaf: leaf[:0], outputs)

    def gathered(self, parts: list[Any]) -> list[Tensor]:
        """Return the rows that all processes have predicted, in their order, for each output.

        Args:
            parts: What this process has predicted for each batch.
        """
        counts, self._counts = self._counts, []
        if not self.are_shared:
            return [torch.cat(pieces) for pieces in zip(*(flatten(part) for part in parts), strict=True)]
        totals = [total for _, total in counts]
        leaves = []
        for pieces in zip(*(flatten(part) for part in parts), strict=True):
            own = torch.cat([piece[:rows] for piece, (rows, _) in zip(pieces, counts, strict=True)])
            leaves.append(self._gathered(own, totals))
        return leaves

    def _gathered(self, own: Tensor, totals: list[int]) -> Tensor:
        bounds = [[self._share.bounds(total, rank) for rank in range(self._group.size)] for total in totals]
        lengths = [
            sum(end - begin for begin, end in (batch[rank] for batch in bounds)) for rank in range(self._group.size)
        ]
        rows = own.detach().contiguous()
        width = rows.shape[1:].numel() * rows.element_size()
        padded = torch.zeros(max(lengths), width or 1, dtype=torch.uint8, device=rows.device)
        if rows.numel():
            padded[: len(rows)] = rows.reshape(len(rows), -1).view(torch.uint8)
        found = [part[:length] for part, length in zip(self._group.gather(padded), lengths, strict=True)]
        places = [0] * self._group.size
        ordered = []
        for batch in bounds:
            for rank, (begin, end) in enumerate(batch):
                ordered.append(found[rank][places[rank] : places[rank] + end - begin])
                places[rank] += end - begin
        joined = torch.cat(ordered)
        return joined.reshape(-1).view(rows.dtype).reshape(len(joined), *rows.shape[1:])
