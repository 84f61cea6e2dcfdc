"""Writer: saves in the background, one at a time."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable


class Writer:
    """Runs one job at a time on a thread of its own; its error comes out at the next call.

    A thread lives as long as its job, so that an idle writer holds nothing. Whoever submits waits in the end; a program
    that ends without waiting, as after a second Ctrl-C, gives the save up. `threading.enumerate` doesn't list the thread.

    Args:
        what: What is written, for the note on an error.

    Example:
        >>> writer = Writer("the model")
        >>> saved = []
        >>> writer.submit(lambda: saved.append("weights"))
        >>> writer.wait()
        >>> saved
        ['weights']
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._done = threading.Event()
        self._done.set()
        self._failure: BaseException | None = None

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return not self._done.is_set()

    def submit(self, job: Callable[[], object]) -> None:
        """Begin a job, once the one under way has ended.

        Args:
            job: Is called on the other thread.

        Raises:
            BaseException: What an earlier job raised and nobody has been told yet; the new job isn't begun then.
        """
        self.wait()
        self._done.clear()
        try:
            # `Thread.start` would wait until the thread runs, which is half of what training waits for.
            _thread.start_new_thread(self._run, (job,))
        except BaseException:
            self._done.set()
            raise

    def check(self) -> None:
        """Raise what a job that has ended raised, once; never waits."""
        if self._failure is not None and not self.busy:
            failure, self._failure = self._failure, None
            raise failure

    def wait(self) -> None:
        """Wait for the job under way, and raise what it raised."""
        self._done.wait()
        self.check()

    def _run(self, job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as error:
            error.add_note(f"raised while {self.what} was being written in the background")
            self._failure = error
        finally:
            self._done.set()
