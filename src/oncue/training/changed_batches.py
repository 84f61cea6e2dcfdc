"""What callbacks change of each batch before it is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from oncue.callbacks import CallbackList
from oncue.core.protocols import ChangesBatches
from oncue.feeding.batch import Batch
from oncue.feeding.row_share import rows_of


def changed_batches(batches: Iterator[Batch], callbacks: CallbackList) -> Iterator[Batch]:
    """Return a pass with what the callbacks of a list make of each batch, one after the other; the same where none changes any.

    Each batch is changed when its turn comes, before the loop looks at what the hooks have changed of the model.

    Args:
        batches: The pass.
        callbacks: The list of the run.
    """
    changing = callbacks.roles.changing
    return _changed(batches, changing) if changing else batches


def _changed(batches: Iterator[Batch], changing: list[ChangesBatches]) -> Iterator[Batch]:
    for batch in batches:
        for callback in changing:
            batch = _checked(callback, batch, callback.change_batch(*batch))
        yield batch


def _checked(callback: ChangesBatches, before: Batch, after: Any) -> Batch:
    if not isinstance(after, tuple) or len(after) != 3:
        raise TypeError(
            f"`{type(callback).__name__}.change_batch` must return (x, y, sample_weight), with None for what isn't there; it "
            f"returned {type(after).__name__}."
        )
    if rows_of(after) != rows_of(before):
        raise ValueError(
            f"`{type(callback).__name__}.change_batch` must leave the number of rows: of {rows_of(before)} rows it returned "
            f"{rows_of(after)}. Leave rows out by a `sample_weight` of 0."
        )
    return after
