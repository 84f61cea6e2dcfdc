"""SIGTERM to a process of a run: launchers send it to those that are left when one has failed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

TIDYING = 20.0
"""Seconds after SIGTERM in which a process has to tidy up; torchrun kills it after thirty."""
_CODE = 128 + signal.SIGTERM
_WHY = "it got SIGTERM"


class Terminated(SystemExit):
    """The end of a process that got SIGTERM in a run of several, after its callbacks were closed."""

    def __str__(self) -> str:
        return _WHY


@contextmanager
def ended_by_sigterm(is_ending: Callable[[], bool]) -> Iterator[None]:
    """Let SIGTERM end a run in the block as Ctrl-C does, with all callbacks closed, and then the process.

    Where the user or a callback has a handler of its own, or Python can't handle signals, nothing is changed.

    Args:
        is_ending: Returns whether the run is ending already, so that what is being tidied up isn't to be interrupted.

    Raises:
        Terminated: With the exit code 143.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    came = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if signal.getsignal(signal.SIGTERM) is not handle:
            # Who was installed after this answers, and calls those before out of courtesy.
            return
        if not came:
            came = True
            threading.Thread(target=_end_late, daemon=True).start()
        interrupt = signal.getsignal(signal.SIGINT)
        if not is_ending() and callable(interrupt):
            # It knows what mustn't be divided, and lets further signals wait.
            try:
                interrupt(signal.SIGINT, frame)
            except KeyboardInterrupt as error:
                error.args = error.args or (_WHY,)
                raise

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    except KeyboardInterrupt as error:
        if came:
            raise Terminated(_CODE) from error
        raise
    finally:
        if signal.getsignal(signal.SIGTERM) is handle:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end_late() -> None:
    time.sleep(TIDYING)
    os._exit(_CODE)
