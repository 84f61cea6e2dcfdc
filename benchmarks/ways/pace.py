"""Pace: who lets a run go on, epoch by epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator


class Finished(Exception):
    """Ends a run from within its last epoch's end."""


class Pace:
    """Holds a run at the end of its epochs until it is told how many more to do, and times those.

    A run is called once and stays in its own `fit`: what is timed is what it does between two ends of an epoch, without
    what it does once, at its beginning and end.

    Args:
        ask: Gives, for the seconds that the last epochs took, the number of the next ones; None to end the run.
        settle: Waits until the device has done what it was told.
    """

    def __init__(self, ask: Callable[[tuple[float, float]], int | None], settle: Callable[[], None]) -> None:
        self._turns = self._take_turns(ask, settle)
        next(self._turns)

    def __call__(self) -> None:
        """Say that an epoch is over; returns when the next one may begin."""
        next(self._turns)

    @staticmethod
    def _take_turns(ask: Callable[[tuple[float, float]], int | None], settle: Callable[[], None]) -> Iterator[None]:
        epochs: int | None = 1
        while epochs is not None:
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(epochs):
                yield
            settle()
            epochs = ask((time.perf_counter() - wall, time.process_time() - cpu))
        raise Finished
