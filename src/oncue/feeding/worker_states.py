"""The random states of a DataLoader's worker processes, sent along with the batches so that new workers can resume.

They include those of generators that are attributes of the data set, of which each worker has a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import get_worker_info

from oncue.feeding.parts import generators_of, parts_of
from oncue.random_state import generator_state, random_state, set_generator_state, set_random_state


class ReportingCollate:
    """Collates in a worker process, and adds the worker's random states to the batch if they have changed.

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
        """Return the batch, and `(worker id, states)`, or None if the states haven't changed."""
        batch, worker = self._collate(samples), get_worker_info()
        if worker is None:
            return batch, None
        now = _states()
        if self._last is not None and _same(self._last, now):
            return batch, None
        self._last = now
        return batch, (worker.id, now)


class WorkerInit:
    """Restores the random states of an earlier worker when a new one starts.

    Args:
        init: The loader's own `worker_init_fn`, called first.
        states: States by worker id.

    Example:
        >>> WorkerInit(lambda number: print("worker", number), {})(3)
        worker 3
    """

    def __init__(self, init: Callable[[int], Any] | None, states: dict[int, dict[str, Any]]) -> None:
        self._init = init
        self._states = states

    def __call__(self, number: int) -> None:
        """Initialize a worker."""
        if self._init is not None:
            self._init(number)
        if number in self._states:
            state = self._states[number]
            set_random_state(state)
            for generator, own in zip(_own_generators(), state.get("own", ()), strict=False):
                set_generator_state(generator, own)


class WorkerStates:
    """The random states of the workers of one pass.

    Workers load batches in turn. New workers resume at the last full round, when all had loaded the same number of
    batches, so that worker 0 is next again; the few batches after it are loaded a second time.

    Args:
        workers: Number of workers.
        states: The states that the workers start with, by worker id.

    Attributes:
        latest: The last reported states, by worker id.
        last_round: The states at the end of the last full round, by worker id.

    Example:
        >>> states = WorkerStates(2, {})
        >>> for number in range(3):
        ...     states.record(number, (number % 2, {"torch": number}))
        >>> states.last_round
        {0: {'torch': 0}, 1: {'torch': 1}}
    """

    def __init__(self, workers: int, states: dict[int, dict[str, Any]]) -> None:
        self.last_round = dict(states)
        self.latest = dict(states)
        self._workers = workers

    def record(self, number: int, report: tuple[int, dict[str, Any]] | None) -> None:
        """Record what `ReportingCollate` added to a batch.

        Args:
            number: The batch's index in the pass.
            report: `(worker id, states)`, or None for no change.
        """
        if report is not None:
            self.latest[report[0]] = report[1]
        if (number + 1) % self._workers == 0:
            self.last_round = dict(self.latest)


def _states() -> dict[str, Any]:
    # A forked worker must not touch CUDA. Unlike a tensor, an array is sent without shared memory.
    states = random_state(cuda=False)
    states["torch"] = states["torch"].numpy()
    own = [generator_state(generator) for generator in _own_generators()]
    states["own"] = [state.tolist() if isinstance(state, torch.Tensor) else state for state in own]
    return states


def _own_generators() -> list[Any]:
    worker = get_worker_info()
    return [] if worker is None else generators_of(parts_of(worker.dataset))


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    python, numpy = one["python"], one["numpy"]
    return bool(
        (one["torch"] == other["torch"]).all()
        and python[2] == other["python"][2]
        and (python[1] == other["python"][1]).all()
        and numpy[2:] == other["numpy"][2:]
        and (numpy[1] == other["numpy"][1]).all()
        and one["own"] == other["own"]
    )
