"""Pace: pauses a run between epochs, and times them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator


class Finished(Exception):
    """Raised at the end of a run's last epoch to end the run."""


class Pace:
    """Pauses a run at the end of an epoch until it is known how many more to train, and times those.

    The run stays within one `fit`, so that only its epochs are timed, and not its beginning and end.

    Args:
        ask: Takes the seconds of the last epochs (elapsed, processor), and returns the number of the next ones; None ends the
            run.
        settle: Waits until the device has finished its work.
    """

    def __init__(self, ask: Callable[[tuple[float, float]], int | None], settle: Callable[[], None]) -> None:
        self._turns = self._take_turns(ask, settle)
        next(self._turns)

    def __call__(self) -> None:
        """Report that an epoch is over; returns when the next one may begin."""
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
