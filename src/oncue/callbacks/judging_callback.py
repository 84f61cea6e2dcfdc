"""JudgingCallback: what callbacks have in common that act on each measured value, wherever in an epoch it is measured."""

from __future__ import annotations

from typing import Any

from oncue.callbacks.monitor_callback import MonitorCallback


class JudgingCallback(MonitorCallback):
    """Judges the value of each epoch, or, with `validation_freq="500 steps"`, of each validation, wherever it is."""

    def needs_of_model(self) -> tuple[str, ...]:
        """Return what it can't do without."""
        return ("stop",)

    def on_validation_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Judge what a validation amid an epoch has measured, as at the end of one."""
        value = self.watched_amid(logs)
        if value is not None and self._run is not None:
            self.judge(value, self._run.progress.epoch or 0)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Judge the value that the epoch has measured."""
        value = self.watched(logs)
        if value is not None:
            self.judge(value, epoch)

    def judge(self, value: float, epoch: int) -> None:
        """Act on a value.

        Args:
            value: The value, which may not be finite.
            epoch: The index of the epoch that it was measured in.
        """
        raise NotImplementedError(f"{type(self).__name__} must say what it does with a value.")
