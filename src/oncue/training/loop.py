"""The one loop over batches: training, evaluation and prediction differ only in their step and their hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from oncue.callbacks import CallbackList
from oncue.core.logs import Logs, Source
from oncue.nested import first_leaf
from oncue.training.batch import Batch

Result = Source | dict[str, Any] | None
Step = Callable[[Batch], Result]

_STOP = {"train": "stop_training", "test": "stop_evaluating", "predict": "stop_predicting"}


def run_batches(
    kind: str,
    batches: Iterable[Batch],
    step: Step,
    callbacks: CallbackList,
    model: Any,
    steps_per_execution: int = 1,
) -> tuple[int, Result]:
    """Take every batch of a pass through a step, with the hooks before and after it.

    No object is made for a hook that nobody listens to, and no value is read from the device unless a callback reads.

    Args:
        kind: "train", "test" or "predict": the hooks `on_{kind}_batch_begin` and `on_{kind}_batch_end`, and the flag.
        batches: The batches of the pass.
        step: From a batch to what the logs are made of.
        callbacks: Who listens.
        model: Who carries the flag `stop_training`, `stop_evaluating` or `stop_predicting`.
        steps_per_execution: How many batches to run between two hooks.

    Returns:
        The number of batches that were run, and what the last step gave.
    """
    begin_hook, end_hook, flag = f"on_{kind}_batch_begin", f"on_{kind}_batch_end", _STOP[kind]
    begin = getattr(callbacks, begin_hook) if callbacks.listens(begin_hook) else None
    end = getattr(callbacks, end_hook) if callbacks.listens(end_hook) else None
    if steps_per_execution > 1:
        return _run_grouped(batches, step, begin, end, model, flag, steps_per_execution)
    done = 0
    result: Result = None
    for batch in batches:
        if begin is not None:
            begin(done, Logs(hidden=_hidden(done, batch)))
        result = step(batch)
        if end is not None:
            end(done, _logs(result, done, batch))
        done += 1
        if getattr(model, flag):
            break
    return done, result


def _run_grouped(
    batches: Iterable[Batch],
    step: Step,
    begin: Callable[..., None] | None,
    end: Callable[..., None] | None,
    model: Any,
    flag: str,
    size: int,
) -> tuple[int, Result]:
    done = 0
    result: Result = None
    for group in _groups(batches, size):
        if begin is not None:
            begin(done, Logs(hidden=_hidden(done, group[0])))
        for batch in group:
            result = step(batch)
        done += len(group)
        if end is not None:
            end(done - 1, _logs(result, done - 1, group[-1]))
        if getattr(model, flag):
            break
    return done, result


def _groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group


def _logs(result: Result, index: int, batch: Batch) -> Logs:
    hidden = _hidden(index, batch)
    if result is None or isinstance(result, dict):
        return Logs(result or {}, hidden=hidden)
    return Logs(source=result, hidden=hidden)


def _hidden(index: int, batch: Batch) -> dict[str, Any]:
    # Code of the Keras 1 and 2 era asks the logs for these two.
    shape = getattr(first_leaf(batch[0]), "shape", None)
    return {"batch": index, "size": shape[0] if shape else 1}
