"""Preemption: a run that gets a signal saves its state and ends."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable
from types import FrameType
from typing import Any

from oncue.callbacks.callback import Callback
from oncue.core.builtin import builtin
from oncue.core.interrupts import undivided
from oncue.core.preempted import Preempted as Preempted
from oncue.core.protocols import save_run
from oncue.core.ranks import Ranks
from oncue.core.suggest import unknown

_ACTIONS = ("exit", "raise")
_EVENTS = {"CTRL_C_EVENT": "SIGINT", "CTRL_BREAK_EVENT": "SIGBREAK"}
# Longer than any step that is still to be waited for, and than the time that clusters give.
_UNANSWERED = 60.0
_LATE = 30.0
"""Seconds after the end of several processes in which some of them may still get the signal that has ended all."""


@builtin
class Preemption(Callback):
    """Ends a run when the process gets a signal, as from a cluster that needs the machine, after its state was saved.

    The signal's handler only sets a flag. It is looked at after each step of training and of validation; then every
    `BackupAndRestore` in the list saves the state of that moment, `on_exception` and `close` of all callbacks are called, and
    the process ends. The same script continues at the next batch when it is started again. In validation the epoch's steps
    count as done, and only validation is done again. A signal to one of several processes that train together ends all of them
    after the same step, each with the same code; to those that get it half a minute later at most, it does nothing more.

    Handlers are installed when a run begins and put back when it ends; one that was there before is called too. Where a loop
    that calls no `close`, as Keras's, has failed, nobody answers: a signal that comes a minute after another that nobody has
    answered goes to the handler that was there before.

    Args:
        signals: The names of the signals; by default SIGTERM, SIGUSR1 and SIGBREAK, as far as the system has them. Windows has
            no SIGUSR1, and gives a program SIGBREAK, which only Windows has, when somebody types Ctrl-Break, closes its console
            or logs off, some seconds before it ends it; SIGTERM comes from no other program there.
        action: "exit" to end the process with the code 128 + signal (143 for SIGTERM), as shells expect; "raise" for a
            `Preempted` exception.

    Raises:
        ValueError: For a name that isn't a signal on this system, or another action. When the run begins outside the
            main thread, where Python can't handle signals.
        SystemExit: When a signal came, with `action="exit"`.
        Preempted: When a signal came, with `action="raise"`.

    Example:
        >>> import os, numpy as np, oncue
        >>> from oncue.callbacks import LambdaCallback
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
        >>> model.compile("sgd", loss="mse")
        >>> kill = LambdaCallback(on_epoch_begin=lambda epoch, logs: os.kill(os.getpid(), signal.SIGUSR1))
        >>> try:
        ...     model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[kill, Preemption(action="raise")])
        ... except Preempted as ended:
        ...     print(ended)
        SIGUSR1 ended the run; the state of that moment was not saved.
    """

    runs_last = True
    saves_run = True
    ends_run = True

    def __init__(self, signals: str | Iterable[str] | None = None, action: str = "exit") -> None:
        super().__init__()
        known = [one.name for one in signal.Signals]
        if signals is None:
            signals = [name for name in ("SIGTERM", "SIGUSR1", "SIGBREAK") if name in known]
        names = [signals] if isinstance(signals, str) else list(signals)
        for name in names:
            if name not in known:
                raise unknown("signal of Preemption", name, known)
            if name in ("SIGKILL", "SIGSTOP"):
                raise ValueError(
                    f"`signals` of Preemption can't have {name}, which no process can handle. Use SIGTERM."
                )
            if name in _EVENTS:
                raise ValueError(
                    f"`signals` of Preemption can't have {name}, which programs send on Windows; a process gets it as "
                    f"{_EVENTS[name]}. Use that."
                )
        if not names:
            raise ValueError("`signals` of Preemption must name at least one signal, such as 'SIGTERM'; got none.")
        if action not in _ACTIONS:
            raise ValueError(f"`action` of Preemption must be 'exit' or 'raise'; got {action!r}.")
        self.signals = list(dict.fromkeys(names))
        self.action = action
        self._training = False
        self._ranks = self.ranks
        self._before: dict[int, Any] = {}
        self._came: int | None = None
        self._since = 0.0
        self._late: int | None = None
        # The signal that has ended all of several processes.
        self._answered: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy listens to nothing yet.
        return {
            **super().__getstate__(),
            "_training": False,
            "_ranks": Ranks(),
            "_before": {},
            "_came": None,
            "_late": None,
            "_answered": None,
        }

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Listen to the signals."""
        self._training = True
        self._listen()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Listen to the signals."""
        self._listen()

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Listen to the signals."""
        self._listen()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """End the run when a signal has come."""
        self._look(logs)

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """End the run when a signal has come."""
        self._look(None)

    def on_predict_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """End the run when a signal has come."""
        self._look(None)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """End the run when a signal has come."""
        self._look(logs)

    def close(self) -> None:
        """Put the earlier handlers back."""
        self._put_back()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Put the earlier handlers back in a loop that calls no `close`, as Keras's."""
        self._training = False
        self._end_alone()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Put the earlier handlers back in a loop that calls no `close`, unless this is the validation of a run."""
        self._end_alone()

    def on_predict_end(self, logs: dict[str, Any] | None = None) -> None:
        """Put the earlier handlers back in a loop that calls no `close`."""
        self._end_alone()

    def _end_alone(self) -> None:
        if self._run is None and not self._training:
            self.after_close()

    @undivided
    def _put_back(self) -> None:
        self._training = False
        before, self._before = self._before, {}
        for number, handler in before.items():
            # What was installed by another language than Python can't be put back, and reads as None.
            put = signal.SIG_DFL if handler is None else handler
            answered = number == self._answered and put == signal.SIG_DFL
            signal.signal(number, _Answered(put) if answered else put)
        late, self._came = self._came, None
        if late is not None and late != self._answered and not callable(before.get(late)):
            self._late = late

    def after_close(self) -> None:
        """Pass a signal that came too late for the run to its earlier handler, now that all callbacks are closed."""
        # A second Ctrl-C may have ended `close` too early.
        self._put_back()
        late, self._late = self._late, None
        if late is not None:
            signal.raise_signal(late)

    @undivided
    def _listen(self) -> None:
        if self._before:
            return
        if threading.current_thread() is not threading.main_thread():
            raise ValueError(
                "Preemption works in the main thread only, where Python handles signals. Call `fit` there, or leave it out."
            )
        self._came = self._answered = None
        self._ranks = self.ranks
        for name in self.signals:
            number = int(signal.Signals[name])
            found = signal.signal(number, self._take_note)
            self._before[number] = found.before if isinstance(found, _Answered) else found

    def _take_note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._came is not None and now - self._since > _UNANSWERED:
            self._put_back()
            self._late = None
            signal.raise_signal(number)
            return
        if self._came is None:
            self._since = now
        self._came = number
        before = self._before.get(number)
        if callable(before):
            before(number, frame)

    def _look(self, logs: dict[str, Any] | None) -> None:
        if self._came is not None:
            self._ranks.ask("signal")
        elif self._ranks.size == 1:
            return
        # A signal that any process got ends all of them, after the same step.
        if self._ranks.asked("signal"):
            self._end(logs)

    def _end(self, logs: dict[str, Any] | None) -> None:
        number, self._came = int(self._ranks.largest(self._came or 0)), None
        self._ranks.settled("signal")
        if self._ranks.size > 1:
            self._answered = number
        name = signal.Signals(number).name
        failure: Exception | None = None
        try:
            saved = save_run(self._run, logs)
        except Exception as error:
            # A full disk doesn't change why the process ends, nor the code that a scheduler waits for.
            saved, failure = False, error
        self._decided("stop", "signal", signal=name, saved=saved)
        ended = Preempted(name, saved)
        ended.__cause__ = failure
        if self.action == "raise":
            raise ended
        raise SystemExit(128 + number) from ended


class _Answered:
    """Handles a signal that has ended a run of several processes, and comes to this one later than to others.

    While the process ends, it would kill it; after some seconds it does again what it did before the run.

    Args:
        before: The handler that was there before the run.
    """

    def __init__(self, before: Any) -> None:
        self.before, self._until = before, time.monotonic() + _LATE

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if time.monotonic() > self._until:
            signal.signal(number, self.before)
            signal.raise_signal(number)
