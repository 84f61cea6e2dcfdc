"""Writer: saves in the background, one at a time.

Written without an executor of `concurrent.futures`: when the program ends it waits for the executor's thread, even after a
second Ctrl-C; that thread never ends while idle; and in a forked process jobs wait for a thread that doesn't exist there.
Starting the first job takes 1.9 times as long with it (`python benchmarks/own_code.py background`).
"""

from __future__ import annotations

import _thread
import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from oncue.core.interrupts import undivided
from oncue.core.warn import kept, warn

_LINGERS = 1.0


class Writer:
    """Runs one job at a time on its own thread; errors and warnings are raised by the next call.

    The thread waits a second for another job, because starting a thread costs training a tenth of a millisecond, and then
    ends, so that an idle writer holds no resources. The owner must call `wait` in the end; if the program ends without it,
    as after a second Ctrl-C, the save is abandoned. `threading.enumerate` doesn't list the thread.

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
        # Held while a job is given or running. A lock of the system's, because Ctrl-C in an `Event`, which is Python code, may
        # leave it locked for good.
        self._running = threading.Lock()
        # The warnings of the job before, and what it raised, when there is any of that.
        self._outcome: tuple[list[tuple[str, type[Warning]]], BaseException | None] | None = None
        # Each with whether it is waited for.
        self._jobs: SimpleQueue[tuple[Callable[[], object], bool]] = SimpleQueue()
        # The process whose thread waits for jobs or does one; a process that is forked has none.
        self._served = 0
        self._lock = threading.Lock()

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return self._running.locked()

    def submit(self, job: Callable[[], object]) -> None:
        """Start a job as soon as the running one has ended.

        Args:
            job: The function to call on the other thread.

        Raises:
            BaseException: What an earlier job raised, if it hasn't been raised yet; the new job isn't started then.
        """
        self.wait()
        given = False
        try:
            self._running.acquire()
            given = True
            self._begin(job, waited_for=True)
        except BaseException:
            # Ctrl-C, or the thread couldn't be started: `wait` must not wait for a job that will never run.
            if self._withdraw() if given else self.busy:
                self._running.release()
            raise

    def check(self) -> None:
        """Issue the warnings of a finished job, and raise what it raised, once; never waits."""
        if self._outcome is not None and not self.busy:
            (said, failure), self._outcome = self._outcome, None
            try:
                for text, category in said:
                    warn(text, category)
            finally:
                # A warning that is an error doesn't hide what the job raised.
                if failure is not None:
                    raise failure

    def wait(self) -> None:
        """Wait for the running job, and raise what it raised."""
        with self._running:
            pass
        self.check()

    def when_idle(self, job: Callable[[], object]) -> None:
        """Call a short function now, or after the running job on its thread; never waits."""
        if self.busy:
            self._begin(job, waited_for=False)
        else:
            job()

    def prepare(self, job: Callable[[], object]) -> None:
        """Call a function on the other thread that nobody waits for, before the jobs that come later; it may not fail."""
        self._begin(job, waited_for=False)

    @undivided
    def _begin(self, job: Callable[[], object], waited_for: bool) -> None:
        self._jobs.put((job, waited_for))
        with self._lock:
            if self._served != os.getpid():
                # `Thread.start` would wait until the thread runs, which is half of what training waits for.
                _thread.start_new_thread(self._serve, ())
                self._served = os.getpid()

    def _withdraw(self) -> bool:
        try:
            self._jobs.get_nowait()
        except Empty:
            return False
        return True

    def _serve(self) -> None:
        while True:
            try:
                job, waited_for = self._jobs.get(timeout=_LINGERS)
            except Empty:
                with self._lock:
                    if self._jobs.empty():
                        self._served = 0
                        return
                continue
            if not waited_for:
                job()
                continue
            said: list[tuple[str, type[Warning]]] = []
            failure: BaseException | None = None
            try:
                with kept(said):
                    job()
            except BaseException as error:
                error.add_note(f"raised while {self.what} was being written in the background")
                failure = error
            finally:
                self._outcome = (said, failure) if said or failure is not None else None
                # Release what the job refers to, such as a model's tensors, instead of keeping it until the next job.
                del job, failure
                self._running.release()
