"""TimeLimit: a run that stops in time, to continue when it is started again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from oncue.callbacks.callback import Callback
from oncue.core.builtin import builtin
from oncue.core.every import Every
from oncue.core.numbers import number_of
from oncue.core.protocols import save_run

_SHARE, _MOST = 0.01, 60.0


@builtin
class TimeLimit(Callback):
    """Ends a run before a time is over, so early that its state can still be saved.

    After each step of training and of validation it looks at the clock. When the longest step and the longest save that
    were seen might not fit into the time that is left, every `BackupAndRestore` in the list saves the state of that
    moment, and `fit` returns its History so far: the current epoch is left unfinished, and the same script continues it
    when it is started again. Until a save was measured, a hundredth of the limit (at most a minute) is kept for it.

    A validation that doesn't fit into the limit starts again each time, so allow for more than one.

    Without a `BackupAndRestore`, training stops as if a callback had set `stop_training`: the epoch is measured and ended.

    Args:
        limit: The time, such as "11 hours" or "30 minutes", or seconds as a number; it begins when training does.
        clock: Gives the time in seconds; only its differences count.

    Raises:
        ValueError: For anything but a time.

    Example:
        >>> import numpy as np, oncue
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
        >>> model.compile("sgd", loss="mse")
        >>> limit = TimeLimit("0.2 seconds")
        >>> history = model.fit(np.ones((8, 2)), np.ones((8, 1)), epochs=10**6, verbose=0, callbacks=[limit])
        >>> len(history.epoch) < 10**6
        True
    """

    runs_last = True
    saves_run = True
    ends_run = True

    def __init__(self, limit: str | float, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        seconds = number_of(limit)
        if seconds is not None and seconds > 0:
            self.limit = float(seconds)
        else:
            period = Every(limit, "TimeLimit") if isinstance(limit, str) else None
            if period is None or period.unit != "second":
                raise ValueError(
                    "`limit` of TimeLimit must be a time, such as '11 hours' or '30 minutes', or seconds above zero; got "
                    f"{limit!r} of type {type(limit).__name__}."
                )
            self.limit = period.amount
        self._clock = clock
        self._began = self._last = clock()
        self._longest = 0.0
        self._over = False

    def needs_of_model(self) -> tuple[str, ...]:
        """Return what it can't do without."""
        return ("stop",)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Let the time begin."""
        self._began = self._last = self._clock()
        self._longest = 0.0
        self._over = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop once more, if need be: what it stopped goes on when a run goes back."""
        self._over = False

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop when the time is nearly over."""
        self._look(logs, inside=True)

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop when the time is nearly over."""
        if self._run is not None and self._run.progress.epoch is not None:
            self._look(None, inside=True)
            if self._over:
                self.model.stop_evaluating = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop when the time is nearly over."""
        if epoch + 1 != (self.params or {}).get("epochs"):
            self._look(logs, inside=False)

    def _look(self, logs: dict[str, Any] | None, inside: bool) -> None:
        now = self._clock()
        # A clock that was set back makes no step longer.
        self._longest = max(self._longest, now - self._last)
        self._last = now
        left = self.limit - (now - self._began)
        if self._over or self.model.stop_training or self._in_trial:
            return
        ranks = self.ranks
        # The clock of the main process decides for all.
        if ranks.main and left <= self._longest + self._saving():
            ranks.ask("time")
        if not ranks.asked("time"):
            return
        ranks.settled("time")
        self._over = True
        paused = save_run(self._run, logs)
        why = self._decided("stop", "time_is_over", seconds=now - self._began, limit=self.limit, saved=paused)
        if paused and self._run is not None:
            self._run.paused = why
        self.model.stop_training = ranks.ending = True

    def _saving(self) -> float:
        measured = [] if self._run is None else [saver.seconds for saver in self._run.savers]
        if not measured:
            return 0.0
        return sum(measured) if all(measured) else min(_SHARE * self.limit, _MOST)
