"""The random states of a DataLoader's worker processes, told with every batch, so that new workers can go on from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.data import get_worker_info

from oncue.random_state import random_state, set_random_state


class ReportingCollate:
    """Collates in a worker process, and adds the random states that the batch left there, where it changed them.

    Args:
        collate: The loader's own `collate_fn`.

    Example:
        >>> ReportingCollate(sum)([1, 2])
        (3, None)
    """

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self._collate = collate
        self._last: dict[str, Any] | None = None

    def __call__(self, samples: Any) -> tuple[Any, Any]:
        """Return the batch, and the worker's number with its states; None when they are as they were."""
        batch, worker = self._collate(samples), get_worker_info()
        if worker is None:
            return batch, None
        now = _states()
        if self._last is not None and _same(self._last, now):
            return batch, None
        self._last = now
        return batch, (worker.id, now)


class WorkerInit:
    """Puts the random states of an earlier worker back when a new one begins.

    Args:
        begin: The loader's own `worker_init_fn`, called first.
        states: From a worker's number to its states.

    Example:
        >>> WorkerInit(lambda number: print("worker", number), {})(3)
        worker 3
    """

    def __init__(self, begin: Callable[[int], Any] | None, states: dict[int, dict[str, Any]]) -> None:
        self._begin = begin
        self._states = states

    def __call__(self, number: int) -> None:
        """Begin a worker."""
        if self._begin is not None:
            self._begin(number)
        if number in self._states:
            set_random_state(self._states[number])


class WorkerStates:
    """What is known of the workers of one pass: their states when each had done as many batches as the others.

    Batches are dealt out in turn. A new set of workers takes them up where all had done the same number, so that worker 0
    is the next again; the few batches beyond that are loaded once more.

    Args:
        workers: How many there are.
        states: Those that an earlier pass ended with, or that they are begun with.

    Example:
        >>> states = WorkerStates(2, {})
        >>> for number in range(3):
        ...     states.delivered(number, (number % 2, {"torch": number}))
        >>> states.even
        {0: {'torch': 0}, 1: {'torch': 1}}
    """

    def __init__(self, workers: int, states: dict[int, dict[str, Any]]) -> None:
        self.even = dict(states)
        self.now = dict(states)
        self._workers = workers

    def delivered(self, number: int, told: tuple[int, dict[str, Any]] | None) -> None:
        """Note what came with a batch.

        Args:
            number: The batch's index in the pass.
            told: What `ReportingCollate` added to it.
        """
        if told is not None:
            self.now[told[0]] = told[1]
        if (number + 1) % self._workers == 0:
            self.even = dict(self.now)


def _states() -> dict[str, Any]:
    # A worker process must not touch CUDA; an array is sent without shared memory.
    states = random_state(cuda=False)
    states["torch"] = states["torch"].numpy()
    return states


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    python, numpy = one["python"], one["numpy"]
    return bool(
        (one["torch"] == other["torch"]).all()
        and python[2] == other["python"][2]
        and (python[1] == other["python"][1]).all()
        and numpy[2:] == other["numpy"][2:]
        and (numpy[1] == other["numpy"][1]).all()
    )
