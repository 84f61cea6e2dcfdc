"""MonitorCallback: what callbacks that watch a logged value have in common."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from oncue.callbacks.callback import Callback
from oncue.core.builtin import builtin
from oncue.core.monitor import Logged, Monitor, MonitorError, as_number, find_monitor
from oncue.core.protocols import directions_of
from oncue.core.suggest import nearest
from oncue.core.warn import warn
from oncue.legacy import log_names, methods as old_methods


@builtin
class MonitorCallback(Callback):
    """Watches one value of the logs; the base of callbacks that act on it.

    Before the first step it finds out whether the run will log the value, and in which direction it gets better.

    Args:
        monitor: The name of the value.
        mode: "min", "max", or "auto" to take the metric's direction.
        min_delta: A change must be larger than this to count.

    Raises:
        ValueError: For a name that isn't a string or a `min_delta` that isn't a finite number.

    Example:
        >>> watcher = MonitorCallback("val_loss")
        >>> watcher.watched({"val_loss": 0.5})
        0.5
    """

    _without: ClassVar[str] = "it will never act"

    def __init__(self, monitor: str = "val_loss", mode: str = "auto", min_delta: float = 0.0) -> None:
        super().__init__()
        owner = type(self).__name__
        if mode not in ("auto", "min", "max"):
            guess = nearest(str(mode)[:3], ("min", "max"))
            hint = "Use 'min' or 'max'." if guess is None else f"Did you mean '{guess}'?"
            warn(f"{owner}: mode '{mode}' is unknown; it falls back to auto mode. {hint}")
            mode = "auto"
        self.monitor = monitor
        self.mode = mode
        self._begin_watch(min_delta)

    @property
    def min_delta(self) -> float:
        """The change that is not yet an improvement."""
        return self.watch.min_delta

    @min_delta.setter
    def min_delta(self, value: float) -> None:
        self._begin_watch(value)

    @property
    def monitor_op(self) -> Any:
        """What told in Keras 2 whether one value is better than another."""
        return old_methods.monitor_op(self)

    def _begin_watch(self, min_delta: float) -> None:
        self.watch = Monitor(self.monitor, self.mode, min_delta, type(self).__name__)
        self._reads = self.monitor
        self._expected = False
        self._validates = False
        self._warned = False

    def set_model(self, model: Any) -> None:
        """Receive the model; what was found for an earlier run is discarded."""
        super().set_model(model)
        self._begin_watch(self.min_delta)

    def expect(self, logged: Logged) -> None:
        """Find the value's name in this run's logs and its direction; refuse a name that can't appear.

        Args:
            logged: What the run is going to log.

        Raises:
            MonitorError: For a near-miss that no callback of the user's own could add, and for a name that the run doesn't
                log by itself when `mode` doesn't say which way is better.
            ValueError: When the direction can't be determined.
        """
        self._begin_watch(self.min_delta)
        self._expected = True
        self._validates = logged.validation
        self._reads, warning = find_monitor(self.monitor, logged, type(self).__name__, self._without)
        self.watch.name = self._reads
        if self._reads in logged.names:
            self._decide_direction(dict(logged.directions))
        else:
            self._decide_direction_of_unknown(logged, warning)
        if warning is not None:
            self._warned = True
            warn(warning)

    def watched(self, logs: dict[str, Any] | None) -> float | None:
        """Return the value in this epoch's logs, or None when it isn't there, with one warning for the whole run.

        An epoch without validation, by `validation_freq`, is no reason to warn; neither is one whose validation was amid its
        batches, which `on_validation_end` had: they aren't of the weights that the epoch ends with. In an epoch that
        was cut short because a value was not finite, the value is NaN whatever was measured: the weights of that epoch are no
        candidates.
        """
        if self._measured_amid():
            return None
        value = None if logs is None else logs.get(self._reads)
        if value is None and logs is not None and not self._expected:
            value = next((logs[name] for name in log_names(self._reads) if name in logs), None)
        number = None if value is None else as_number(value)
        if number is not None:
            if self.watch.direction is None:
                self._decide_direction({})
            return math.nan if self._run is not None and self._run.progress.cut_short(self.model) else number
        if not self._warned and not self._skipped(logs):
            self._warned = True
            known = ", ".join(logs or ()) or "nothing"
            if value is not None:
                warn(f"{type(self).__name__} watches `{self.monitor}`, whose value {value!r} is no number.")
                return None
            said = (
                f"{type(self).__name__} watches `{self.monitor}`, which is not available; this epoch logged: {known}."
            )
            try:
                self._decide_direction({})
            except ValueError:
                raise MonitorError(f"{said} If it comes later, pass `mode='min'` or `mode='max'`.") from None
            warn(f"{said} A callback that adds it must stand before {type(self).__name__} in the list.")
        return None

    def watched_amid(self, logs: dict[str, Any] | None) -> float | None:
        """Return the value in the logs of a validation amid an epoch; None when a value of training is watched."""
        return self.watched(logs) if self._reads.startswith("val_") else None

    def _measured_amid(self) -> bool:
        """Return whether the value is one of validation that `on_validation_end` had, before the epoch ended."""
        progress = None if self._run is None else self._run.progress
        return progress is not None and progress.validated_amid and self._reads.startswith("val_")

    def _skipped(self, logs: dict[str, Any] | None) -> bool:
        """Return whether this is one of the epochs between those with validation, which have no value of it at all."""
        if self._measured_amid():
            return True
        return (
            self._validates
            and self._reads.startswith("val_")
            and not any(name.startswith("val_") for name in logs or ())
        )

    def _decide_direction(self, directions: dict[str, str]) -> None:
        if self.watch.direction is None and not directions:
            directions.update(directions_of(self.model))
        self.watch.resolve(directions)

    def _decide_direction_of_unknown(self, logged: Logged, warning: str | None) -> None:
        try:
            self._decide_direction(dict(logged.directions))
        except ValueError:
            if warning is not None:
                raise MonitorError(f"{warning} Give one of these as `monitor`.") from None
            guess = nearest(self.monitor, logged.names)
            hint = "" if guess is None else f" Did you mean `{guess}`?"
            raise MonitorError(
                f"{type(self).__name__} watches `{self.monitor}`, which this run doesn't log by itself.{hint} If a "
                f"callback of yours adds it, pass `mode='min'` or `mode='max'` too. It will log: "
                f"{', '.join(logged.names)}."
            ) from None
