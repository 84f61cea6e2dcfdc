"""BaseLogger: epoch means of what batches log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from oncue.callbacks.callback import Callback
from oncue.core.builtin import builtin
from oncue.core.logs import Logs


@builtin
class BaseLogger(Callback):
    """Puts the mean of every value that batches log into the logs of the epoch, weighted by the batch's `size`.

    Keras 1 and 2 applied it to every model. In `fit` the logs are means over the epoch already, so it leaves them; it
    works in a training loop of your own, that gives a `CallbackList` the values of each batch.

    Args:
        stateful_metrics: Names whose last value is taken instead of their mean.

    Example:
        >>> logger = BaseLogger()
        >>> logger.on_epoch_begin(0)
        >>> logger.on_batch_end(0, {"loss": 1.0, "size": 3})
        >>> logger.on_batch_end(1, {"loss": 5.0, "size": 1})
        >>> logs = {}
        >>> logger.on_epoch_end(0, logs)
        >>> logs
        {'loss': 2.0}
    """

    later_fields = ("seen", "totals")

    def __init__(self, stateful_metrics: Iterable[str] | None = None) -> None:
        super().__init__()
        self.stateful_metrics = set(stateful_metrics or ())
        self.seen = 0.0
        self.totals: dict[str, float] = {}

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the means of an epoch."""
        self.seen = 0.0
        self.totals = {}

    def on_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Add a batch."""
        if logs is None or (isinstance(logs, Logs) and logs.running):
            return
        size = float(logs.get("size", 1))
        self.seen += size
        for name, value in logs.items():
            if name in self.stateful_metrics:
                self.totals[name] = value
            elif name not in ("size", "batch"):
                self.totals[name] = self.totals.get(name, 0.0) + value * size

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Put the means into the logs."""
        if logs is None or not self.seen:
            return
        for name, total in self.totals.items():
            logs[name] = total if name in self.stateful_metrics else total / self.seen
