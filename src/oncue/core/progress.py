"""Progress: where a run stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Progress:
    """The epoch and the batch that a run is in; advanced by the callback list, in one place.

    Args:
        epoch: The index of the epoch; None before the first.
        batch: The index of the batch in its epoch; None between batches.

    Example:
        >>> Progress(epoch=2)
        Progress(epoch=2, batch=None)
    """

    epoch: int | None = None
    batch: int | None = None
