"""TerminateOnNaN: ends a run whose loss is no number any more."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from oncue.callbacks.arguments import whole
from oncue.callbacks.callback import Callback
from oncue.core.console import print_message
from oncue.core.monitor import Logged, as_number, find_monitor


class TerminateOnNaN(Callback):
    """Stops training after a batch whose loss is NaN or infinite.

    It reads the logs after every batch, so every batch waits for the device. On an accelerator, `every=50` looks only
    at each 50th batch, and at the end of the epoch: the logs are means over the epoch so far, so that a value which was
    not finite stays so until then.

    The weights of an epoch in which it stops count as best for no callback.

    Args:
        raise_error: Whether to raise a RuntimeError, so that no `on_train_end` is called, instead of stopping.
        monitor: The name of the value to look at, a list of names, or "*" for every logged value. Names with `val_`
            are looked at when the epoch has ended.
        every: Look at each so many batches.

    Raises:
        ValueError: For a `monitor` that is no name, or an `every` below 1. Before the first step, for a name that the
            run can't log.
        RuntimeError: With `raise_error`, when a value is not finite.

    Example:
        >>> import numpy as np, oncue
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
        >>> model.compile("sgd", loss="mse")
        >>> y = np.array([[1.0], [np.nan], [1.0]])
        >>> stop = TerminateOnNaN()
        >>> history = model.fit(np.ones((3, 2)), y, batch_size=1, shuffle=False, verbose=0, callbacks=[stop])
        Batch 1: Invalid loss, terminating training
    """

    def __init__(self, raise_error: bool = False, *, monitor: str | Iterable[str] = "loss", every: int = 1) -> None:
        super().__init__()
        names = [monitor] if isinstance(monitor, str) else list(monitor) if isinstance(monitor, Iterable) else []
        if not names or not all(isinstance(name, str) and name for name in names):
            raise ValueError(
                "`monitor` of TerminateOnNaN must be the name of a logged value, a list of names, or '*'; got "
                f"{monitor!r}."
            )
        self.raise_error = raise_error
        self.monitor = names
        self.every = whole("TerminateOnNaN", "every", every, least=1)
        self.reads_batch_logs = self.every == 1
        self._reads = names
        self._unseen = 0
        self._fired = False

    def expect(self, logged: Logged) -> None:
        """Find the names in this run's logs; refuse those that can't appear.

        Args:
            logged: What the run is going to log.

        Raises:
            MonitorError: For a near-miss that no callback of the user's own could add.
        """
        self._reads = [
            name if name == "*" else find_monitor(name, logged, type(self).__name__)[0] for name in self.monitor
        ]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start with nothing."""
        self._unseen = 0
        self._fired = False

    def on_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the values, when it is their turn."""
        self._unseen += 1
        if self._unseen >= self.every:
            self._unseen = 0
            self._look("batch", batch, logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the values of validation, and at those of batches that were skipped."""
        if not self._fired:
            self._look("epoch", epoch, logs)

    def _look(self, what: str, index: int, logs: dict[str, Any] | None) -> None:
        for name, value in self._values(logs):
            number = as_number(value)
            if number is None or math.isfinite(number):
                continue
            self._fired = True
            where = f"{what} {index}" if what == "batch" else f"{what} {index + 1}"
            self.note(f"stopped: {name} is {number} after {where}", kind="stop", not_finite=name, value=str(number))
            if self.raise_error:
                raise RuntimeError(
                    f"NaN or Inf {name} encountered at {where}. {name.capitalize()} value: {number}. Terminating "
                    "training immediately."
                )
            print_message(f"{where.capitalize()}: Invalid {name}, terminating training")
            self.model.stop_training = True
            return

    def _values(self, logs: dict[str, Any] | None) -> list[tuple[str, Any]]:
        if logs is None:
            return []
        if "*" in self._reads:
            return list(logs.items())
        return [(name, logs[name]) for name in self._reads if name in logs]
