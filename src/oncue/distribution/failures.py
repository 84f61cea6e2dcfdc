"""Failures: a process that fails says why, and the others end soon, with that reason."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from oncue.core.preempted import is_agreed
from oncue.distribution.asking import Asking
from oncue.distribution.meeting import Store

_Values = TypeVar("_Values")

_LOOK = timedelta(seconds=0.25)
"""After how long the main thread, when it waits for others, looks whether one of them has failed."""
_GRACE = 10.0
"""Seconds that a process which has failed gives the others to close their callbacks, before it is gone."""
_ASK = 10.0
"""Seconds that a process whose connections broke waits to learn why."""
_PAUSE = 0.02
"""Seconds between two looks at what others have counted."""
_LOST = 30.0
"""Seconds without an answer after which the store is lost."""
_SILENT = 15.0
"""Seconds without a word after which a process is lost while the group is made, when none of them does anything else."""
_LONGEST = 2000
"""The most characters of an error that are told to others."""
_NOT_USERS = (
    os.path.dirname(os.__file__) + os.sep,
    *(os.path.dirname(os.path.dirname(os.path.abspath(file))) + os.sep for file in (__file__, torch.__file__)),
)
_LOST_MAIN = "process 0, where the processes meet: it was killed, its script ended, or its machine is lost"
_KILLED = "it ended without a word: something killed it, such as the system for want of memory"

ALL_MUST_COME = (
    "All must come to the same calls: none of `fit`, `evaluate`, `predict`, `ranks.agree` and `ranks.broadcast` may stand "
    "where only some processes come."
)


class PeerFailed(RuntimeError):
    """Another process of the run failed, was killed, or hangs; the message says which, where and why."""


class RanksDiverged(RuntimeError):
    """The processes of a run don't do the same any more; the message names what differs."""


class _Broken(Exception):
    def __init__(self, error: RuntimeError) -> None:
        self.error = error


class _Gone(Exception):
    """The store doesn't answer."""


class Failures:
    """What this process knows of the failures of others, and tells them of its own.

    A thread writes about once a second, to the store that all processes reach, what this process is doing, and reads there
    whether another has failed, and what its neighbour is doing: in the ring of processes each is watched by one other. A step
    does nothing of that. The main thread, while it waits for others, looks now and then at what the thread has found.

    Args:
        store: What all processes reach; for this object alone.
        rank: The number of this process.
        size: How many processes there are.
        timeout: Seconds after which a process that others wait for is taken to hang, unless it is reading data.
        serves: Whether the store ends with this process.

    Attributes:
        reason: Why the run of all processes has ended; None while it goes on.
    """

    def __init__(self, store: Store, rank: int, size: int, timeout: float, serves: bool = False) -> None:
        self.timeout, self.reason = timeout, None
        self._patience = timeout
        # What torch connects the processes in, when that has no end.
        self._making: threading.Thread | None = None
        self._store, self._rank, self._size, self._serves = store, rank, size, serves
        self._place: Callable[[], tuple[str, bool]] = lambda: ("", False)
        self._runs = 0
        self._kind: type[RuntimeError] = PeerFailed
        # What the main thread does: the number of collectives that it has come to, and the one that it waits in.
        self._count, self._waits = 0, ""
        self._told = self._closed = False
        # How many processes don't come to an end of their own.
        self._silent = 0
        self._process = os.getpid()
        # What the thread has seen: since when the main thread waits, and of the neighbour.
        self._interval = max(0.5, size / 500)
        self._neighbour = (rank + 1) % size
        self._still: tuple[int, float] = 0, time.monotonic()
        self._beat, self._beat_came, self._moved = b"", time.monotonic(), time.monotonic()
        # When the store answered last, and that time once it answers no more.
        self._heard = time.monotonic()
        self._lost: float | None = None
        store.set_timeout(timedelta(seconds=min(timeout, _LOST)))
        self._asking = Asking()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="oncue-processes", daemon=True)
        store.compare_set("reason", "", "")
        store.set(f"beat {rank}", self._state("starts"))
        # The neighbour may be killed before it says a word, for which the store would wait.
        store.compare_set(f"beat {self._neighbour}", "", self._state("starts"))

    reason: str | None

    def watch(self) -> None:
        """Begin to watch; when all processes are there."""
        self._thread.start()

    # The main thread -------------------------------------------------------------------------------------------------

    def make(self, make: Callable[[], _Values], what: str) -> _Values:
        """Return what all processes make together.

        In another thread, because torch looks at nothing while it connects them: it waits five times as long as it is told for
        one that was killed meanwhile, and not even Ctrl-C ends that.

        Args:
            make: Makes it.
            what: What it is, in words.

        Raises:
            PeerFailed: When another process fails, is killed or hangs, or it isn't made in time.
        """
        made: list[_Values] = []
        errors: list[Exception] = []

        def run() -> None:
            try:
                made.append(make())
            except Exception as error:
                errors.append(error)

        self._count += 1
        self._waits, self._patience = what, min(self.timeout, _SILENT)
        thread = threading.Thread(target=run, name="oncue-meeting", daemon=True)
        thread.start()
        # Whoever is gone, and with process 0 the store, is missed before.
        looks, deadline = 0, time.monotonic() + self.timeout + _SILENT
        try:
            while thread.is_alive():
                thread.join(_LOOK.total_seconds())
                looks += 1
                if self._lost is not None and self.reason is None:
                    self._tell(_LOST_MAIN)
                if self._has_ended(looks) and not made:
                    self._making = thread
                    raise self.ended()
                if time.monotonic() > deadline:
                    self._tell(f"{self._named('')}: it hasn't come through {what} within {self.timeout + _SILENT:g} s")
            if errors and isinstance(errors[0], RuntimeError):
                raise self._explained(errors[0]) from errors[0]
            if errors:
                raise errors[0]
            return made[0]
        finally:
            self._waits, self._patience = "", self.timeout

    def run(self, begin: Callable[[], Any], what: str, on_device: bool = False) -> None:
        """Run a collective of torch.distributed, and wait until it is done.

        Args:
            begin: Begins it, and returns what can be waited for.
            what: What it is for, in words.
            on_device: Whether only the device waits for it.

        Raises:
            PeerFailed: When another process fails, is killed or hangs.
            RanksDiverged: When another process waits for something else.
        """
        self.finish(self.begin(begin, what), what, on_device)

    def begin(self, begin: Callable[[], Any], what: str) -> Any:
        """Begin a collective of torch.distributed, and return what `finish` waits for; see `run`."""
        if self.reason is not None:
            raise self.ended()
        self._count += 1
        self._waits = what
        try:
            return _tried(begin)
        except _Broken as broken:
            raise self._explained(broken.error) from broken.error
        finally:
            self._waits = ""

    def finish(self, work: Any, what: str, on_device: bool = False) -> None:
        """Wait until a collective is done that `begin` has begun; see `run`."""
        self._waits = what
        try:
            if on_device:
                work.wait()
            else:
                looks = 0
                while not _done(work):
                    looks += 1
                    if self._has_ended(looks) and not _done(work):
                        raise self.ended()
        except _Broken as broken:
            raise self._explained(broken.error) from broken.error
        finally:
            self._waits = ""

    def _has_ended(self, looks: int) -> bool:
        # A process that was stopped itself has looked less often.
        if looks * _LOOK.total_seconds() > self._patience and time.monotonic() - self._heard > self._patience:
            self._lost = self._heard
            self._tell(
                f"process 0, where the processes meet: not heard of for {self._patience:g} s: it was stopped, or its machine "
                "is lost"
            )
        return self.reason is not None

    def read(self, values: Callable[[], _Values], what: str) -> _Values:
        """Return values that are there when a device is done with its collectives.

        Args:
            values: Waits for them.
            what: What they are for, in words.

        Raises:
            PeerFailed: When another process fails, is killed or hangs.
        """
        self._waits = what
        try:
            found = values()
        finally:
            self._waits = ""
        if self.reason is not None:
            # The device was let go, and the values are none.
            raise self.ended()
        return found

    def count(self, what: str, more: int) -> int:
        """Add to a number that all processes share, and return it.

        Raises:
            PeerFailed: When the process where the number is kept is gone.
        """
        try:
            return int(self._ask(self._store.add, what, more))
        except _Gone:
            self._tell(_LOST_MAIN)
            raise self.ended() from None

    def wait(self, what: str, count: int) -> None:
        """Wait until so many others have counted something; in a thread beside the main one.

        A process that is gone breaks no connection here, as it is sent nothing: so each one's signs of life are looked at.

        Args:
            what: What they count.
            count: How many there must be.

        Raises:
            PeerFailed: When a process fails meanwhile, isn't heard of any more, or all have left.
        """
        seen: dict[int, tuple[bytes, float]] = {}
        looked = time.monotonic()
        while self.count(what, 0) < count:
            if self.reason is not None:
                raise self.ended()
            if time.monotonic() - looked > self._interval:
                looked = time.monotonic()
                self._look_for_life(seen, looked, lambda: self.count(what, 0) >= count)
            time.sleep(_PAUSE)

    def _look_for_life(self, seen: dict[int, tuple[bytes, float]], now: float, is_done: Callable[[], bool]) -> None:
        others = [rank for rank in range(self._size) if rank != self._rank]
        try:
            beats = self._ask(self._store.multi_get, [f"beat {rank}" for rank in others])
        except _Gone:
            # Asked for the number next, it says so.
            return
        gone = 0
        for rank, beat in zip(others, beats, strict=True):
            if json.loads(beat)["does"] == "left":
                gone += 1
            elif seen.get(rank, (b"", now))[0] != beat:
                seen[rank] = beat, now
            elif now - seen[rank][1] > self.timeout:
                self._tell(
                    f"{self._named('', rank)}: not heard of for {self.timeout:g} s: it was killed or stopped, or its machine "
                    "is lost",
                    silent=True,
                )
        if gone == len(others) and not is_done():
            self._tell("all other processes: their scripts ended, while this one waits for their parts of a save")

    @property
    def is_final(self) -> bool:
        """Whether the processes can't meet again: one is gone, or this one is still in the run that has ended."""
        if self._silent or self._lost is not None or self._runs:
            return True
        try:
            return bool(self._ask(self._store.add, "left", 0))
        except _Gone:
            return True

    def ended(self) -> RuntimeError:
        """Return the error that says why the run of all processes has ended."""
        return self._kind(self.reason)

    def failed(self, error: BaseException) -> None:
        """Tell the others that this process fails, once.

        Not in a run inside another, where it may be caught; and not of an end that all have agreed on.

        Args:
            error: Why.
        """
        if self.reason is None and self._runs <= 1 and not is_agreed(error):
            place, _ = self._place()
            line = _users_line(traceback.extract_tb(error.__traceback__))
            text = f"{type(error).__name__}: {error}".strip(": ")[:_LONGEST]
            self._told = True
            if isinstance(error, RanksDiverged):
                self._tell(str(error), diverged=True)
            else:
                self._tell(f"{self._named(place)}: {text}{line and f' ({line})'}")

    def diverged(self, text: str) -> RuntimeError:
        """Return the error of processes that differ, which all of them have found out at the same place.

        Args:
            text: What differs.
        """
        self._tell(text, diverged=True)
        return self.ended()

    def look(self) -> None:
        """Learn now whether another process has failed."""
        try:
            self._take(self._ask(self._store.get, "reason"))
        except _Gone:
            # The next message will show whether that matters.
            pass

    @contextmanager
    def running(self, place: Callable[[], tuple[str, bool]]) -> Iterator[None]:
        """Enclose a run, whose failure is that of the others, too.

        Args:
            place: Returns where the run is, in words, and whether it is reading data; called in another thread.
        """
        around, self._place = self._place, place
        self._runs += 1
        try:
            yield
        except BaseException as error:
            self.failed(error)
            raise
        finally:
            self._place = around
            self._runs -= 1
            if not self._runs and self.reason is not None:
                self._count_closed()

    def leave(self) -> bool:
        """Stop watching at the end of the process. One that has failed waits until the others have closed their callbacks.

        Returns:
            Whether it is this process that watches, and not one that it has forked.
        """
        if os.getpid() != self._process:
            return False
        error = getattr(sys, "last_value", None)
        if isinstance(error, BaseException) and self.reason is None:
            # It came between two runs, and is what ends the script.
            self.failed(error)
        # Before the others are told: the process that keeps the store goes as soon as all have left, and the thread would be
        # amid a question to it. Nor must it write once more that this process works.
        self.stop()
        try:
            self._ask(self._store.set, f"beat {self._rank}", self._state("left"))
            self._count_closed()
            self._ask(self._store.add, "left", 1)
            deadline = time.monotonic() + _GRACE
            while time.monotonic() < deadline and not self._may_go():
                time.sleep(0.05)
        except _Gone:
            # With the store whoever would wait for anything is gone.
            pass
        # As `stop`: what waits for a process 0 that was stopped is let go when that one ends, which mustn't be just when the
        # interpreter ends here; and process 0 may wait, too.
        deadline = time.monotonic() + (_GRACE if self._serves or self._making is None else 2 * _GRACE)
        self._wait_for_threads(deadline)
        if self._making is not None:
            self._making.join(max(0.0, deadline - time.monotonic()))
        return True

    def stop(self) -> None:
        """Stop watching. A thread that is amid a question when the interpreter ends would end the process by a signal."""
        self._ends.set()
        # A question to a store that doesn't answer has no end; one to a store that is gone has an error at once.
        self._wait_for_threads(time.monotonic() + (_GRACE if self._lost is None else 1.0))

    def _wait_for_threads(self, deadline: float) -> None:
        self._thread.join(max(0.0, deadline - time.monotonic()))
        self._asking.end(max(0.0, deadline - time.monotonic()))

    def _may_go(self) -> bool:
        # Launchers end the other processes as soon as one has ended with an error.
        expected = self._size - self._silent
        if self._told and self._ask(self._store.add, "closed", 0) < expected:
            return False
        return not self._serves or self._ask(self._store.add, "left", 0) >= expected

    def _count_closed(self) -> None:
        if not self._closed:
            self._closed = True
            try:
                self._ask(self._store.add, "closed", 1)
            except _Gone:
                # Nobody is left who could count.
                pass

    # Why ---------------------------------------------------------------------------------------------------------------

    def _named(self, place: str, rank: int | None = None) -> str:
        name = f"process {self._rank if rank is None else rank}"
        return f"{name}, {place}" if place else name

    def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        """Ask the store, but don't wait for ever: the process that keeps it may be stopped, and not all questions give up."""
        if self._lost is None:
            try:
                return self._asking.ask(question, *arguments, seconds=_ASK)
            except (RuntimeError, TimeoutError):
                self._lost = self._heard
        raise _Gone

    def _tell(self, reason: str, diverged: bool = False, silent: bool = False) -> None:
        """End the run of all, with a reason; where another has come before, with that one's."""
        given = json.dumps([reason, diverged, silent])
        try:
            self._take(self._ask(self._store.compare_set, "reason", "", given))
        except _Gone:
            self._take(given.encode())

    def _take(self, given: bytes) -> None:
        if given:
            text, diverged, silent = json.loads(given)
            self._silent = int(silent)
            self._kind = RanksDiverged if diverged else PeerFailed
            self.reason = text if diverged else f"The processes of the run ended, because of {text}"

    def _explained(self, error: RuntimeError) -> RuntimeError:
        """Return the error that says why a connection broke."""
        deadline = time.monotonic() + _ASK
        try:
            # Who fails says so before its connections close. Who was killed has said nothing: one process finds out who.
            self._look_for_reason(time.monotonic() + 2 * self._interval)
            if self.reason is None and self._ask(self._store.add, "asks", 1) == 1:
                self._find_silent(error)
            self._look_for_reason(deadline)
        except _Gone:
            self._tell(_LOST_MAIN)
        if self.reason is None:
            self._tell(f"a connection that broke: {error}")
        return self.ended()

    def _look_for_reason(self, deadline: float) -> None:
        while self.reason is None:
            self._take(self._ask(self._store.get, "reason"))
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)

    def _find_silent(self, error: RuntimeError) -> None:
        keys = [f"beat {rank}" for rank in range(self._size)]
        for key in keys:
            self._ask(self._store.compare_set, key, "", self._state("starts"))
        before = self._ask(self._store.multi_get, keys)
        time.sleep(4 * self._interval)
        after = self._ask(self._store.multi_get, keys)
        for rank, (one, other) in enumerate(zip(before, after, strict=True)):
            state = json.loads(other)
            if rank != self._rank and (one == other or state["does"] == "left"):
                if state["does"] == "left":
                    self._tell(f"{self._named('', rank)}: its script ended, while others wait for it")
                else:
                    # All are at the same place, and its own last word may be a second old.
                    place, _ = self._place()
                    self._tell(f"{self._named(place, rank)}: {_KILLED}", silent=True)
                return
        self._tell(f"a connection that broke: {error}")

    # The thread ----------------------------------------------------------------------------------------------------------

    def _state(self, does: str = "") -> str:
        place, reads = self._place()
        waits = self._waits
        does = does or ("waits" if waits else "reads" if reads else "works")
        line = "" if does != "works" or self._still[0] != self._count else _line_of_main_thread()
        return json.dumps(
            {"time": time.time(), "place": place, "does": does, "count": self._count, "waits": waits, "line": line}
        )

    def _watch(self) -> None:
        store, keys = self._store, ["reason", f"beat {self._neighbour}"]
        while not self._ends.wait(self._interval):
            try:
                store.set(f"beat {self._rank}", self._state())
                reason, beat = store.multi_get(keys)
            except RuntimeError:
                self._lost = self._heard
                break
            self._heard = time.monotonic()
            self._take(reason)
            if self.reason is not None:
                break
            self._judge(beat)
        group = dist.group.WORLD if dist.is_initialized() else None
        if self.reason is not None and group is not None and dist.get_backend() != "gloo":
            # The main thread may wait for the device. What is computed there is lost with the run.
            group.abort()

    def _judge(self, beat: bytes) -> None:
        """End the run when the neighbour, whom this process waits for, is gone, hangs, or does something else."""
        now = time.monotonic()
        if beat != self._beat:
            self._beat_came = now
            if not self._beat or json.loads(beat)["count"] != json.loads(self._beat)["count"]:
                self._moved = now
            self._beat = beat
        if self._still[0] != self._count or not self._waits:
            self._still = self._count, now
            return
        state, since = json.loads(beat), self._still[1]
        named = self._named(state["place"], self._neighbour)
        if state["does"] == "left":
            self._tell(f"{named}: its script ended, while others wait for it in {self._waits}")
        elif state["does"] == "waits" and state["count"] == self._count and state["waits"] != self._waits:
            self._tell(
                f"The processes of this run don't do the same: process {self._rank} waits for all in {self._waits}, process "
                f"{self._neighbour} in {state['waits']}. {ALL_MUST_COME}",
                diverged=True,
            )
        elif now - max(since, self._beat_came) > self._patience:
            self._tell(
                f"{named}: not heard of for {self._patience:g} s: it was stopped, or its machine is lost", silent=True
            )
        elif state["does"] == "works" and now - max(since, self._moved) > self.timeout:
            where = f", at {state['line']}" if state["line"] else ""
            self._tell(
                f"{named}: others have waited for it for {self.timeout:g} s{where}. If that is no error, let them wait longer: "
                "`keras.distribution.initialize(timeout=...)`",
                silent=True,
            )


def _tried(begin: Callable[[], Any]) -> Any:
    try:
        return begin()
    except RuntimeError as error:
        raise _Broken(error) from None


def _done(work: Any) -> bool:
    began = time.monotonic()
    try:
        work.wait(_LOOK)
        return True
    except RuntimeError as error:
        if not work.is_completed():
            if time.monotonic() - began < _LOOK.total_seconds() / 2:
                # No time was over: a collective of several messages, of which one has failed, is never completed.
                raise _Broken(error) from None
            return False
    # It may have been done just after the time was over; if not, its own error is raised here.
    _tried(work.wait)
    return True


def _users_line(stack: traceback.StackSummary) -> str:
    """Return the innermost line that is the user's own, in words; "" without one."""
    for frame in reversed(stack):
        if not frame.filename.startswith(_NOT_USERS) and not frame.filename.startswith("<frozen"):
            return f"{os.path.basename(frame.filename)}:{frame.lineno} in {frame.name}"
    return ""


def _line_of_main_thread() -> str:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return "" if frame is None else _users_line(traceback.extract_stack(frame))
