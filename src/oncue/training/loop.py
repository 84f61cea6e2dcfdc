"""The one loop over batches: training, evaluation and prediction differ only in their step and their hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any
from weakref import ref

from oncue.callbacks import CallbackList
from oncue.core.logs import RunningLogs, Source
from oncue.feeding.batch import Batch
from oncue.feeding.row_share import RowShare, rows_of

if TYPE_CHECKING:
    from oncue.training.epochs import ValidationAmid
    from oncue.training.steps import Steps

Result = Source | dict[str, Any] | None
Step = Callable[[Batch], Result]


_STOP = {"train": "stop_training", "test": "stop_evaluating", "predict": "stop_predicting"}


def run_batches(
    kind: str,
    batches: Iterable[Batch],
    steps: Steps,
    callbacks: CallbackList,
    model: Any,
    start: int = 0,
    amid: ValidationAmid | None = None,
) -> tuple[int, Result]:
    """Take every batch of a pass through a step, with the hooks before and after it.

    No object is made for a hook that no callback has, and no value is read from the device unless a callback reads it.

    Args:
        kind: "train", "test" or "predict": the hooks `on_{kind}_batch_begin` and `on_{kind}_batch_end`, and the flag.
        batches: The batches of the pass.
        steps: Gives the step, from a batch to what the logs are made of, and another where a hook has changed the model.
        callbacks: Who listens.
        model: Who carries the flag `stop_training`, `stop_evaluating` or `stop_predicting`, and says by
            `steps_per_execution` how many batches to run between two hooks.
        start: The index of the first batch, in a pass that is resumed in its middle.
        amid: Validates between two batches, where that may be due.

    Returns:
        The number of batches of the pass that are done, and what the last step gave.
    """
    begin_hook, end_hook, flag = f"on_{kind}_batch_begin", f"on_{kind}_batch_end", _STOP[kind]
    begin, end = callbacks.caller(begin_hook), callbacks.caller(end_hook)
    may_be_kept = callbacks.calls_others(end_hook)
    changed = steps.changed if steps.watched else None
    # Where code of the user's runs between the steps, the model is told which of both it is that uses it.
    marks = vars(model) if kind == "train" and steps.watched else {}
    marks["_in_hook"] = True
    ends, share = steps.ends, steps.share
    done, following = start, 0
    step: Step | None = None
    result: Result = None
    iterator = iter(batches)
    if amid is not None and start and amid.validate(start, None):
        # The state of a run that was resumed is from before a validation, which has asked for its end.
        return done, result
    for batch in iterator:
        if begin is not None:
            begin(done, BatchLogs(done, batch, share=share))
        if step is None or (changed is not None and changed()):
            step, following = steps.make(batch, done), model.steps_per_execution - 1
        marks["_in_hook"] = False
        result = step(batch)
        done += 1
        # Each batch is made when its turn comes: a group of them at once would be read from memory, not from the caches.
        for batch in islice(iterator, following):
            result = step(batch)
            done += 1
        if following:
            steps.finish()
        marks["_in_hook"] = True
        if amid is not None:
            amid.count(done - 1)
        if end is not None:
            logs = _logs(result, done - 1, batch, share)
            end(done - 1, logs)
            kept = ref(logs) if may_be_kept else None
            del logs
            # The next step changes unread values. Logs that are still referenced get values of their own; to give them to
            # all would cost a copy of every metric in every batch.
            if kept is not None and (held := kept()) is not None:
                held.own()
                del held
        if ends() if ends is not None else getattr(model, flag):
            break
        if amid is not None and amid.due:
            marks["_in_hook"] = False
            if amid.validate(done, result):
                break
            # Any hook may have changed the model meanwhile.
            step = None
    marks["_in_hook"] = False
    return done, result


def _logs(result: Result, index: int, batch: Batch, share: RowShare | None) -> BatchLogs:
    if result is None or isinstance(result, dict):
        return BatchLogs(index, batch, result or (), share=share)
    return BatchLogs(index, batch, source=result, share=share)


class BatchLogs(RunningLogs):
    """The logs of a batch, which code of the Keras 1 and 2 era also asks for `batch` and `size`."""

    __slots__ = ("_batch", "_index", "_share", "_size")

    def __init__(
        self,
        index: int,
        batch: Batch,
        values: Any = (),
        *,
        source: Source | None = None,
        share: RowShare | None = None,
    ) -> None:
        super().__init__(values, source=source)
        self._share = share
        self._index = index
        self._batch: Batch | None = batch
        self._size = 0

    def __missing__(self, key: str) -> Any:
        if key == "batch":
            return self._index
        if key == "size":
            self._count()
            return self._size
        return super().__missing__(key)

    def own(self) -> None:
        """Release the batch and the values that the next step changes."""
        self._count()
        super().own()

    def _count(self) -> None:
        if self._batch is not None:
            # A process that has none of a batch's rows runs another's along.
            self._size = rows_of(self._batch) if self._share is None or self._share.rows else 0
            self._batch = None
